"""The scenes that lab 4.4.5 plays on its cluster, and the rooms in it that exercises are checked in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from course_lib.cluster import Deployer, KindCluster, make_key, serving
from course_lib.images import bases, course_image

#: The second of the two ports that lead outside: the lab's own Service has the first.
EXERCISE_PORT = 30081


def lab_cluster() -> KindCluster:
    """The lab's cluster: one control plane, two workers. Not started by this."""
    return KindCluster("lab", source=bases.source()[0], workers=2)


def ready_cluster() -> KindCluster:
    """The lab's cluster, started and with the course's image on its nodes if it is not so already."""
    found = lab_cluster()
    found.up()
    if not any(name.endswith(serving.IMAGE) for name in found.images()):
        found.load(course_image.ensure_inference_image(), name=serving.IMAGE)
    return found


def deployer(cluster: KindCluster, namespace: str = serving.NAMESPACE) -> Deployer:
    """A Deployer for a namespace of the lab's cluster."""
    return Deployer(namespace, kubeconfig=cluster.kubeconfig, kubectl=cluster.source)


@contextmanager
def room(cluster: KindCluster, name: str) -> Iterator[Deployer]:
    """A namespace of a check's own, with the server's key in it; gone after the block, with all that was put there.

    Args:
        name: of the namespace, such as the exercise's.
    """
    found = deployer(cluster, name)
    if found.api.find("v1", "Namespace", name):  # left by a check that was interrupted
        cluster.kubectl("delete", "namespace", name, show=False, timeout=120)
    make_key(found)
    try:
        yield found
    finally:
        cluster.kubectl("delete", "namespace", name, show=False, timeout=120)
