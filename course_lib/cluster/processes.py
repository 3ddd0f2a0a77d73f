"""A container's processes as they see themselves: listed and signalled from inside, where nobody can go to its node."""

from __future__ import annotations

from course_lib.cluster.deployer import Deployer
from course_lib.cluster.execute import execute
from course_lib.errors import CourseError

#: Those of this container alone: where a pod's processes see each other, the others have another root file system (mount namespace).
_OWN = 'own=$(readlink /proc/self/ns/mnt); for p in /proc/[0-9]*; do n=${p#/proc/}; if [ "$n" != $$ ] && [ "$(readlink $p/ns/mnt)" = "$own" ]; then '
_END = "; fi; done 2>/dev/null; true"


def first(deployer: Deployer, pod: str) -> int:
    """The number that the first process of a pod's first container has in there: 1, unless the pod's processes see each other.

    Raises:
        CourseError: there is no such pod, or it runs nothing.
    """
    spec = deployer.api.get("v1", "Pod", pod, deployer.namespace)["spec"]
    if not spec.get("shareProcessNamespace"):
        return 1
    said = execute(deployer.api, deployer.namespace, pod, "sh", "-c", f"{_OWN}echo $n{_END}").stdout.split()
    if not said:
        raise CourseError(
            f"pod {pod} does not show its processes", do="They have to be of one user: look at runAsUser."
        )
    return min(int(one) for one in said)


def signal(deployer: Deployer, pod: str, name: str) -> list[int]:
    """Sends every process of a pod's first container a signal, from inside; returns their numbers.

    Args:
        name: as in `STOP`.

    Raises:
        CourseError: there is no such pod, or its processes can't be signalled from inside.
    """
    spec = deployer.api.get("v1", "Pod", pod, deployer.namespace)["spec"]
    if not spec.get("shareProcessNamespace"):
        raise CourseError(
            f"the server in pod {pod} can't be stopped or killed from inside",
            why="It is process 1 of its PID namespace, and Linux gives that one no SIGSTOP or SIGKILL from within.",
            do="Apply the manifest by `deployer.apply(…)`, which gives its pods `shareProcessNamespace: true` here, or write it there.",
        )
    said = execute(deployer.api, deployer.namespace, pod, "sh", "-c", f'{_OWN}kill "-$0" $n && echo $n{_END}', name)
    return [int(one) for one in said.stdout.split()]
