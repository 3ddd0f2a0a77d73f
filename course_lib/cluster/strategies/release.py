"""A release: an image and what its pods may use. It is put on a Deployment, looked at, and taken back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from course_lib import shell, waits
from course_lib.cluster import readings, serving
from course_lib.cluster.api import Object
from course_lib.cluster.deployer import Deployer
from course_lib.cluster.pods import Pod

_APPS = ("apps/v1", "Deployment")


@dataclass(frozen=True)
class Release:
    """What is rolled out."""

    image: str
    cpu: str = "500m"
    """Limit of each pod."""
    name: str = ""
    """How people call it."""

    def words(self) -> str:
        """It in a few words."""
        return self.name or self.image.rpartition("/")[2]


def current(deployer: Deployer, name: str) -> Release:
    """The release that a Deployment has."""
    container = deployer.api.get(*_APPS, name, deployer.namespace)["spec"]["template"]["spec"]["containers"][0]
    return Release(container["image"], container["resources"]["limits"]["cpu"])


def put(deployer: Deployer, name: str, release: Release, *, replicas: int | None = None, resume: bool = False) -> None:
    """Gives a Deployment a release, in one change and so in one rollout.

    Args:
        replicas: also another number of pods.
        resume: a rollout that was paused goes on with it.
    """
    container = deployer.api.get(*_APPS, name, deployer.namespace)["spec"]["template"]["spec"]["containers"][0]
    _announce(deployer, "set", "image", f"deployment/{name}", f"{container['name']}={release.image}")
    amounts = {part: {"cpu": release.cpu} for part in ("limits", "requests")}
    if container["resources"]["limits"]["cpu"] != release.cpu:
        _announce(deployer, "set", "resources", f"deployment/{name}", f"--limits=cpu={release.cpu}", "--requests=cpu=…")
    # No more is set aside than the manifests ask for: the machine is small.
    amounts["requests"]["cpu"] = "200m" if _millicores(release.cpu) >= 200 else release.cpu
    spec: Object = {
        "template": {
            "spec": {"containers": [{"name": container["name"], "image": release.image, "resources": amounts}]}
        }
    }
    if replicas is not None:
        _announce(deployer, "scale", f"deployment/{name}", f"--replicas={replicas}")
        spec["replicas"] = replicas
    if resume:
        _announce(deployer, "rollout", "resume", f"deployment/{name}")
        spec["paused"] = None
    deployer.api.patch(*_APPS, name, deployer.namespace, {"spec": spec})


def pause(deployer: Deployer, name: str, paused: bool = True) -> None:
    """Stops a rollout where it is, or lets it go on."""
    _announce(deployer, "rollout", "pause" if paused else "resume", f"deployment/{name}")
    deployer.api.patch(*_APPS, name, deployer.namespace, {"spec": {"paused": paused or None}})


def select(deployer: Deployer, service: str, labels: Mapping[str, str]) -> None:
    """Lets a Service lead to the pods with these labels, and no others, from now on."""
    line = ",".join(f"{key}={value}" for key, value in labels.items())
    _announce(deployer, "set", "selector", f"service/{service}", line)
    replaced = [{"op": "replace", "path": "/spec/selector", "value": dict(labels)}]
    deployer.api.patch("v1", "Service", service, deployer.namespace, replaced, how="json-patch")


def ready(deployer: Deployer, name: str) -> list[Pod]:
    """A Deployment's pods that get requests."""
    return [pod for pod in deployer.pods(name) if pod.ready and not pod.terminating]


def require_leads_to(deployer: Deployer, service: str, pods: list[Pod], *, timeout: float = 30) -> list[str]:
    """Waits until a Service lists these pods, and no others; returns their addresses.

    Raises:
        CourseError: it does not come to that.
    """
    wanted = sorted(pod.ip for pod in pods)

    def probe() -> list[str]:
        listed = readings.endpoints(deployer, service)
        if listed != wanted:
            raise waits.NotYet(f"it lists {listed}, and {wanted} are wanted")
        return listed

    return waits.until(probe, what=f"Service {service} to lead to its new pods", timeout=timeout, every=0.1)


def empty(deployer: Deployer, name: str) -> None:
    """Takes all pods of a Deployment away; does not wait for their ends."""
    deployer.scale(name, 0)


def _millicores(cpu: str) -> float:
    return float(cpu.removesuffix("m")) * (1 if cpu.endswith("m") else 1000)


def _announce(deployer: Deployer, *arguments: str) -> None:
    shell.announce(shell.readable(["kubectl", f"--namespace={deployer.namespace}", *arguments]))


SERVER_LABELS = {"app.kubernetes.io/name": "inference-server"}
SERVICE = serving.SERVICE


def same_image(one: str, other: str) -> bool:
    """Whether two references name one image: containerd writes Docker Hub's host in front."""
    return _bare(one) == _bare(other)


def _bare(reference: str) -> str:
    return reference.removeprefix("docker.io/").removeprefix("library/")
