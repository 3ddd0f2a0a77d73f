"""What goes wrong in a data centre, done on purpose: on the node where that is a container of this machine, else from inside the pod."""

from __future__ import annotations

from course_lib import shell
from course_lib.cluster import processes
from course_lib.cluster.cluster import Cluster
from course_lib.cluster.deployer import Deployer
from course_lib.cluster.kind_cluster import KindCluster
from course_lib.cluster.pods import Pod
from course_lib.errors import CourseError

#: Signals every process of a container: it is known by the container's id in its control group, whatever runtime it is.
_SIGNAL = 'for p in /proc/[0-9]*; do if grep -qs "$1" "$p/cgroup"; then kill "-$2" "${p#/proc/}" && echo "${p#/proc/}"; fi; done'


def freeze(cluster: Cluster, deployer: Deployer, pod: Pod) -> None:
    """Stops a pod's processes where they stand: they neither answer nor end, as with a deadlock or a hanging disk.

    Raises:
        CourseError: none of its processes was found, or they can't be reached.
    """
    _signal(cluster, deployer, pod, "STOP")


def crash(cluster: Cluster, deployer: Deployer, pod: Pod) -> None:
    """Kills a pod's processes, as the kernel does when memory runs out.

    Raises:
        CourseError: none of its processes was found, or they can't be reached.
    """
    _signal(cluster, deployer, pod, "KILL")


def _signal(cluster: Cluster, deployer: Deployer, pod: Pod, signal: str) -> None:
    if isinstance(cluster, KindCluster):
        done = _on_node(cluster, deployer, pod, signal)
    else:
        done = bool(processes.signal(deployer, pod.name, signal))
    if not done:
        raise CourseError(
            f"no process of pod {pod.name} was found on node {pod.node}", do="Does it run? `deployer.pods(…)` says."
        )


def _on_node(cluster: KindCluster, deployer: Deployer, pod: Pod, signal: str) -> bool:
    """Whether a process on the node was signalled."""
    found = deployer.api.get("v1", "Pod", pod.name, deployer.namespace)
    ids = [
        one["containerID"].rpartition("//")[2]
        for one in found["status"].get("containerStatuses", [])
        if one.get("containerID")
    ]
    shell.announce(f"# on node {pod.node}: kill -{signal} every process of pod {pod.name}")
    done = [
        shell.run(
            ["docker", "exec", pod.node, "sh", "-c", _SIGNAL, "signal", one, signal], show=False, check=False, timeout=30
        ).output
        for one in ids
    ]  # fmt: skip
    return pod.node in cluster.containers and any(done)
