"""The scenes that lab 4.4.5 plays on its cluster, and the rooms in it that exercises are checked in."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from course_lib import images, waits
from course_lib.cluster import Cluster, ContextCluster, Deployer, KindCluster, headers, make_key, serving
from course_lib.cluster.usage import Usage
from course_lib.errors import CourseError
from course_lib.images import bases, course_image
from course_lib.settings import settings
from course_lib.steady_load import SteadyLoad

#: The second of the two ports that lead outside: the lab's own Service has the first.
EXERCISE_PORT = 30081
#: What costs a model server something: some ten milliseconds of a CPU, where one row for the classifier costs a fraction of one.
CHAT = {
    "model": "tutor",
    "messages": [{"role": "user", "content": "What is an image layer?"}],
    "max_tokens": 40,
}


def lab_cluster() -> Cluster:
    """The lab's cluster: one control plane and two workers by kind, or with TARGET=kube-context one that is there already. Not
    started by this."""
    found, source = settings(), bases.source()[0]
    if found.target == "kube-context":
        return ContextCluster(
            "lab", source=source, context=found.kube_context, registry=found.kube_registry, cordons=found.kube_cordon
        )
    return KindCluster("lab", source=source, workers=2)


def ready_cluster() -> Cluster:
    """The lab's cluster, started and with the course's image on its nodes if it is not so already."""
    found = lab_cluster()
    found.up()
    if not any(name.endswith(serving.IMAGE) for name in found.images()):
        found.load(course_image.ensure_inference_image(), name=serving.IMAGE)
    return found


def deployer(cluster: Cluster, namespace: str = serving.NAMESPACE) -> Deployer:
    """A Deployer for a namespace of the lab's cluster; on one that is somebody's, the namespace is made the course's own first."""
    if namespace != "default":  # every cluster has that one; who only asks what the server would say asks there
        cluster.claim(namespace)
    return Deployer(namespace, kubeconfig=cluster.kubeconfig, kubectl=cluster.source, fit=cluster.fit)


@contextmanager
def room(cluster: Cluster, name: str) -> Iterator[Deployer]:
    """A namespace of a check's own, with the server's key in it; gone after the block, with all that was put there.

    Args:
        name: of the namespace, such as the exercise's.
    """
    cluster.release(name)  # left by a check that was interrupted
    found = deployer(cluster, name)
    make_key(found)
    try:
        yield found
    finally:
        cluster.release(name)


def predictions(cluster: Cluster, found: Deployer, *, rate: float) -> SteadyLoad:
    """A steady load of digits to classify through the Service, each on a connection of its own, as from many users."""
    body = {"model": "digits", "inputs": list(images.samples(1)[0].pixels)}
    return _load(f"{cluster.address()}/predict", body, found, rate)


def chats(cluster: Cluster, found: Deployer, *, rate: float, chat: Mapping[str, Any] = CHAT) -> SteadyLoad:
    """A steady load of chats through the Service: what makes the pods compute."""
    return _load(f"{cluster.address()}/v1/chat/completions", chat, found, rate)


def _load(url: str, body: Mapping[str, Any], found: Deployer, rate: float) -> SteadyLoad:
    return SteadyLoad(url, body, rate=rate, headers=headers(found), keep_alive=False)


def drained(cluster: Cluster, node: str) -> AbstractContextManager[bool]:
    """A node is emptied, as before its repair: nothing new comes, and its pods are asked to go; afterwards it is back."""
    return cluster.drained(node)


def left_of(cluster: Cluster) -> list[str]:
    """What there still is of a cluster, or on one that is somebody's."""
    return cluster.left()


def nodes_of(cluster: Cluster, found: Deployer) -> list[dict[str, object]]:
    """The nodes, and which of the server's pods are where."""
    pods = found.pods(serving.DEPLOYMENT)
    return [
        {
            "node": node.name,
            "role": node.role,
            "state": node.words(),
            "pods of the server": ", ".join(pod.name for pod in pods if pod.node == node.name) or "none",
        }
        for node in cluster.nodes()
    ]


def used_of(found: Deployer) -> list[dict[str, object]]:
    """What the server's pods use, beside what they asked for.

    Raises:
        WaitTimeout: the metrics server says nothing for a minute; under load it is away for a moment now and then.
    """
    spec = found.api.get("apps/v1", "Deployment", serving.DEPLOYMENT, found.namespace)["spec"]["template"]["spec"]
    asked = spec["containers"][0]["resources"]

    def measured() -> Mapping[str, Usage]:
        try:
            return found.used(serving.DEPLOYMENT)
        except CourseError as error:
            raise waits.NotYet(error.what) from None

    return [
        {
            "pod": pod,
            "CPU used": f"{usage.cpu * 1000:.0f}m",
            "requested": asked["requests"]["cpu"],
            "limit": asked["limits"]["cpu"],
            "memory used": f"{usage.memory / 2**20:.0f}Mi",
            "requested ": asked["requests"]["memory"],
            "limit ": asked["limits"]["memory"],
        }
        for pod, usage in waits.until(measured, what="the pods' figures", timeout=180, every=1).items()
    ]


def json_patch(cluster: Cluster, node: str, *operations: Mapping[str, object]) -> None:
    """Changes a node's status, as the device plugins do by their own means."""
    cluster.kubectl("patch", "node", node, "--subresource=status", "--type=json", f"--patch={json.dumps(operations)}")
