"""GPUs on a cluster: a node configuration for those that have one, and what becomes of a pod that asks for one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from course_lib import shell, waits
from course_lib.cluster import manifests
from course_lib.cluster.cluster import Cluster
from course_lib.cluster.deployer import Deployer
from course_lib.cluster.execute import execute
from course_lib.cluster.kind_cluster import KindCluster
from course_lib.errors import CourseError
from course_lib.lab.steps import record
from course_lib.settings import CHECKOUT

GPU = "nvidia.com/gpu"
OVERLAY = CHECKOUT / "k8s" / "overlays" / "gpu"
_POD = "asks-for-a-gpu"


@dataclass(frozen=True)
class Asked:
    """What became of a pod that asked for a GPU."""

    used: bool
    said: str
    """What it saw of the GPU, or why the scheduler let it wait."""


def require_config(cluster: Cluster) -> dict[str, Any]:
    """The cluster's configuration for a GPU host, read by kind itself, which knows every field and refuses any other.

    Nothing is started: kind reads the file before it says that a cluster of this name is there already. Of a cluster that the
    course did not make, it is read how many GPUs each node offers.

    Raises:
        CourseError: kind refuses the file, or the cluster does not run.
    """
    config = cluster.config(gpu=True)
    if not isinstance(cluster, KindCluster):
        offered = {node["name"]: node["gpus"] for node in config["nodes"]}
        record("cluster.gpu-config", "kubernetes", cluster.name, gpus_by_node=offered, read_by="the API server")
        return config
    file = cluster.folder / "kind-gpu.yaml"
    file.write_text(yaml.safe_dump(config, sort_keys=False))
    try:
        cluster.create(file)
    except CourseError as error:
        said = f"{error.what}\n{error.why}"
        if "already exist" not in said:
            raise CourseError("kind refuses the configuration for a GPU host", why=error.why) from None
    else:
        raise CourseError("kind made a second cluster of one name", do="Start the lab's own first: `course.up()`.")
    mounts = [mount for node in config["nodes"] for mount in node.get("extraMounts", [])]
    record("cluster.gpu-config", "kind", str(Path(file).name), mounts=mounts, read_by="kind")
    return config


def request(deployer: Deployer, image: str, *, timeout: float = 180) -> Asked:
    """Starts a pod as the overlay `gpu` has them, which asks for one GPU, and looks what becomes of it.

    Where no node has one, it stays Pending, and the scheduler says of each node why. It is deleted afterwards.

    Args:
        image: what it runs.

    Raises:
        CourseError: it is neither started nor found unschedulable in time.
    """
    found = manifests.read(OVERLAY, kubectl=deployer.kubectl)
    template = next(one for one in found if one["kind"] == "Deployment")["spec"]["template"]
    pod: dict[str, Any] = {
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": _POD, "labels": {"course": "gpu"}},
        "spec": {**template["spec"], "restartPolicy": "Never"},
    }  # fmt: skip
    pod["spec"]["containers"][0]["image"] = image
    deployer.apply([pod])
    try:
        wanted = deployer.api.get("v1", "Pod", _POD, deployer.namespace)["spec"]["containers"][0]["resources"]["limits"]
        record("gpu.requested", "kubernetes", _POD, limits=wanted)
        if wanted.get(GPU) != "1":
            raise CourseError(f"the pod asks for {wanted}, and for no GPU")

        def settled() -> Asked:
            now = deployer.api.get("v1", "Pod", _POD, deployer.namespace)
            if now["status"]["phase"] == "Running":
                said = execute(deployer.api, deployer.namespace, _POD, "nvidia-smi", "--list-gpus")
                return Asked(True, said.stdout)
            for one in now["status"].get("conditions", []):
                if one["type"] == "PodScheduled" and one["status"] == "False" and one.get("reason") == "Unschedulable":
                    return Asked(False, one["message"])
            raise waits.NotYet(now["status"]["phase"])

        outcome = waits.until(settled, what="the scheduler's word", timeout=timeout, every=0.3)
        capacity = {
            one["metadata"]["name"]: one["status"].get("allocatable", {}).get(GPU, "0")
            for one in deployer.api.objects("v1", "Node")
        }
        if not outcome.used and any(value != "0" for value in capacity.values()):
            raise CourseError("a node has a GPU, and the pod was not put there", why=f"{capacity}\n{outcome.said}")
        record("gpu.outcome", "kubernetes", _POD, used=outcome.used, said=outcome.said, gpus_by_node=capacity)
        return outcome
    finally:
        shell.announce(f"kubectl --namespace={deployer.namespace} delete pod {_POD}")
        deployer.api.delete("v1", "Pod", _POD, deployer.namespace)
