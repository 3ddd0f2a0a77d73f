"""A program inside a running container of a pod, as `kubectl exec` starts it."""

from __future__ import annotations

from dataclasses import dataclass

from kubernetes import client
from kubernetes.stream import stream

from course_lib import shell
from course_lib.cluster.api import Api
from course_lib.errors import CourseError


@dataclass(frozen=True)
class Executed:
    """How a program ended, and what it said."""

    status: int
    stdout: str
    stderr: str


def execute(
    api: Api, namespace: str, pod: str, *command: str, container: str = "", timeout: float = 30, show: bool = True
) -> Executed:
    """Runs a program in a pod to its end.

    Args:
        container: which of the pod's; by default its first.
        timeout: seconds.
        show: whether the kubectl line is shown; a wait that asks again and again does not.

    Raises:
        CourseError: there is no such pod or program, the pod does not run, or the program did not end in time.
    """
    if show:
        shell.announce(shell.readable(["kubectl", f"--namespace={namespace}", "exec", pod, "--", *command]))
    found = api.get("v1", "Pod", pod, namespace)
    first = found["spec"]["containers"][0]["name"]
    try:
        # A client of its own: the library turns the one it is given into one for WebSockets.
        channel = stream(
            client.CoreV1Api(client.ApiClient(api.configuration)).connect_get_namespaced_pod_exec,
            pod, namespace, container=container or first, command=list(command),
            stdin=False, stdout=True, stderr=True, tty=False, _preload_content=False,
        )  # fmt: skip
    except client.ApiException as error:
        raise CourseError(
            f"nothing can be run in pod {pod}",
            why=str(error.reason or error),
            do="Does it run? `deployer.pods(…)` says.",
        ) from None
    channel.run_forever(timeout=timeout)
    if channel.is_open():
        channel.close()
        raise CourseError(f"`{command[0]}` in pod {pod} did not end within {timeout:.0f} s")
    said = Executed(channel.returncode or 0, channel.read_stdout() or "", channel.read_stderr() or "")
    if said.status in (126, 127) and "executable file not found" in said.stderr + said.stdout:
        raise CourseError(f"pod {pod} has no program {command[0]}", do="Run what its image has.")
    return said
