"""One GPU and a rolling update: why they wait for each other for ever. With a device that is only counted, so it runs anywhere."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from course_lib import waits
from course_lib.cluster import Cluster, Deployer, KindCluster, serving
from course_lib.exercises.cluster_scenes import json_patch, room

#: The scheduler counts whatever a node says it has; `nvidia.com/gpu` is such a name, too, given out by NVIDIA's device plugin.
DEVICE = "example.com/gpu"
_NAME = "takes-the-gpu"


def deadlock(cluster: Cluster) -> list[dict[str, object]]:
    """A rolling update of a Deployment that has a node's only device, and the same with the strategy Recreate.

    Returns:
        who was where after each of the three moments; a row that says why not, where the nodes are not the course's own.

    Raises:
        CourseError: it did not come to that.
    """
    if not isinstance(cluster, KindCluster):
        why = "not shown on this cluster: its nodes are somebody's, and are not made to say what they don't have"
        return [{"when": why, "pod": "", "state": "", "the scheduler says": ""}]
    with _one_device(cluster, cluster.containers[-1]), room(cluster, "one-gpu") as found:
        found.apply([_deployment()])
        found.wait(_NAME)
        rows = _pods(found, "one pod has the device")
        found.restart(_NAME)
        waits.until(lambda: _unschedulable(found), what="the new pod to find no device", timeout=180, every=0.3)
        rows += _pods(found, "RollingUpdate: a new one first")
        strategy = {"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}}
        found.api.patch("apps/v1", "Deployment", _NAME, found.namespace, strategy)
        waits.until(lambda: _one(found), what="the old pod to go first", timeout=180, every=0.3)
        found.wait(_NAME)
        return rows + _pods(found, "Recreate: the old one goes first")


def _pods(found: Deployer, when: str) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for pod in found.pods(_NAME):
        if pod.terminating:
            continue
        status = found.api.get("v1", "Pod", pod.name, found.namespace)["status"]
        said = next((one.get("message", "") for one in status["conditions"] if one["type"] == "PodScheduled"), "")
        rows.append({"when": when, "pod": pod.name, "state": pod.words(), "the scheduler says": said})
    return rows


def _unschedulable(found: Deployer) -> None:
    states = {pod.reason for pod in found.pods(_NAME) if not pod.terminating}
    if states != {"Running", "Unschedulable"}:
        raise waits.NotYet(str(states))


def _one(found: Deployer) -> None:
    there = [pod.words() for pod in found.pods(_NAME) if not pod.terminating]
    if len(there) != 1:
        raise waits.NotYet("; ".join(there) or "no pod")


@contextmanager
def _one_device(cluster: Cluster, node: str) -> Iterator[None]:
    """A node says that it has one, for as long as the block lasts."""
    path = f"/status/capacity/{DEVICE.replace('/', '~1')}"
    json_patch(cluster, node, {"op": "add", "path": path, "value": "1"})
    try:
        waits.until(lambda: _offered(cluster, node), what="the node to offer its device", timeout=180, every=0.3)
        yield
    finally:
        json_patch(cluster, node, {"op": "remove", "path": path})


def _offered(cluster: Cluster, node: str) -> None:
    """The kubelet takes it over at its next look, at most 10 s later."""
    found = json.loads(cluster.kubectl("get", "node", node, "--output=json", show=False).stdout)
    if found["status"]["allocatable"].get(DEVICE) != "1":
        raise waits.NotYet("the kubelet has not taken it over")


def _deployment() -> dict[str, Any]:
    labels = {"app.kubernetes.io/name": _NAME}
    container = {
        "name": "holder", "image": serving.IMAGE, "imagePullPolicy": "IfNotPresent", "command": ["sleep", "3600"],
        "resources": {"limits": {DEVICE: "1"}},
    }  # fmt: skip
    return {
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": _NAME},
        "spec": {
            "replicas": 1,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"terminationGracePeriodSeconds": 0, "containers": [container]},
            },
        },
    }  # fmt: skip
