"""The scenes that lab 4.4.5 plays on its cluster, and the rooms in it that exercises are checked in."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from course_lib import images, shell
from course_lib.cluster import Deployer, KindCluster, headers, make_key, serving
from course_lib.images import bases, course_image
from course_lib.steady_load import SteadyLoad

#: The second of the two ports that lead outside: the lab's own Service has the first.
EXERCISE_PORT = 30081
#: What costs a model server something: some ten milliseconds of a CPU, where one row for the classifier costs a fraction of one.
CHAT = {
    "model": "tutor",
    "messages": [{"role": "user", "content": "What is an image layer?"}],
    "max_tokens": 40,
}


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


def predictions(cluster: KindCluster, found: Deployer, *, rate: float) -> SteadyLoad:
    """A steady load of digits to classify through the Service, each on a connection of its own, as from many users."""
    body = {"model": "digits", "inputs": list(images.samples(1)[0].pixels)}
    return _load(f"{cluster.address()}/predict", body, found, rate)


def chats(cluster: KindCluster, found: Deployer, *, rate: float, chat: Mapping[str, Any] = CHAT) -> SteadyLoad:
    """A steady load of chats through the Service: what makes the pods compute."""
    return _load(f"{cluster.address()}/v1/chat/completions", chat, found, rate)


def _load(url: str, body: Mapping[str, Any], found: Deployer, rate: float) -> SteadyLoad:
    return SteadyLoad(url, body, rate=rate, headers=headers(found), keep_alive=False)


@contextmanager
def drained(cluster: KindCluster, node: str) -> Iterator[None]:
    """A node is emptied, as before its repair: nothing new comes, and its pods are asked to go; afterwards it is back."""
    try:
        cluster.kubectl("drain", node, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=150s", timeout=170)
        yield
    finally:
        cluster.kubectl("uncordon", node)


def left_of(cluster: KindCluster) -> list[str]:
    """What the engine still has of a cluster: containers, networks, and the file that led to it."""
    rows = []
    for kind, listing in (
        ("container", ["docker", "ps", "--all", "--format={{.Names}}"]),
        ("network", ["docker", "network", "ls", "--format={{.Name}}"]),
    ):
        names = shell.run(listing, show=False, timeout=30).output.split()
        rows += [f"{kind} {name}" for name in names if name == cluster.name or name in cluster.containers]
    return rows + [f"file {cluster.kubeconfig.name}"] * cluster.kubeconfig.exists()


def nodes_of(cluster: KindCluster, found: Deployer) -> list[dict[str, object]]:
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
    """What the server's pods use, beside what they asked for."""
    spec = found.api.get("apps/v1", "Deployment", serving.DEPLOYMENT, found.namespace)["spec"]["template"]["spec"]
    asked = spec["containers"][0]["resources"]
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
        for pod, usage in found.used(serving.DEPLOYMENT).items()
    ]


def json_patch(cluster: KindCluster, node: str, *operations: Mapping[str, object]) -> None:
    """Changes a node's status, as the device plugins do by their own means."""
    cluster.kubectl("patch", "node", node, "--subresource=status", "--type=json", f"--patch={json.dumps(operations)}")
