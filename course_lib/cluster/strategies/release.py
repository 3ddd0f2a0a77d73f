"""A release: an image and what its pods may use. It is put on a Deployment, looked at, and taken back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from kubernetes.utils.quantity import parse_quantity

from course_lib import shell, waits
from course_lib.cluster import readings, serving
from course_lib.cluster.api import Object
from course_lib.cluster.deployer import Deployer
from course_lib.cluster.pods import Pod

#: What every pod of the server carries, whichever version it is of.
SERVER_LABELS = {"app.kubernetes.io/name": "inference-server"}
#: CPU that is set aside for a pod, as k8s/strategies/track has it.
_REQUEST = "100m"
_APPS = ("apps/v1", "Deployment")


@dataclass(frozen=True)
class Release:
    """What is rolled out: an image, and what its manifest says beside it."""

    image: str
    name: str = ""
    """How people call it."""
    cpu: str = "500m"
    """Limit of each pod."""
    keys: str = serving.KEYS
    """The Secret with the keys that open it."""

    def words(self) -> str:
        """It in a few words."""
        return self.name or self.image.rpartition("/")[2]


def current(deployer: Deployer, name: str) -> Release:
    """The release that a Deployment has."""
    spec = _pod(deployer, name)
    container, volumes = spec["containers"][0], {one["name"]: one for one in spec["volumes"]}
    return Release(
        container["image"], cpu=container["resources"]["limits"]["cpu"], keys=volumes["keys"]["secret"]["secretName"]
    )


def put(deployer: Deployer, name: str, release: Release, *, replicas: int | None = None, resume: bool = False) -> None:
    """Gives a Deployment a release, in one change and so in one rollout.

    Args:
        replicas: also another number of pods.
        resume: a rollout that was paused goes on with it.
    """
    before, container = current(deployer, name), _pod(deployer, name)["containers"][0]["name"]
    _announce(deployer, "set", "image", f"deployment/{name}", f"{container}={release.image}")
    if before.cpu != release.cpu:
        _announce(deployer, "set", "resources", f"deployment/{name}", f"--limits=cpu={release.cpu}")
    if before.keys != release.keys:
        _announce(deployer, "edit", f"deployment/{name}", f"# volume keys: secretName: {release.keys}")
    # No more is set aside than the manifests ask for: the machine is small.
    amounts = {"limits": {"cpu": release.cpu}, "requests": {"cpu": _smaller(release.cpu, _REQUEST)}}
    template: Object = {
        "containers": [{"name": container, "image": release.image, "resources": amounts}],
        "volumes": [{"name": "keys", "secret": {"secretName": release.keys}}],  # both lists are merged by name
    }
    spec: Object = {"template": {"spec": template}}
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


def _pod(deployer: Deployer, name: str) -> Object:
    """What the pods of a Deployment are made by."""
    found: Object = deployer.api.get(*_APPS, name, deployer.namespace)["spec"]["template"]["spec"]
    return found


def _smaller(one: str, other: str) -> str:
    return min(one, other, key=parse_quantity)


def _announce(deployer: Deployer, *arguments: str) -> None:
    shell.announce(shell.readable(["kubectl", f"--namespace={deployer.namespace}", *arguments]))


def same_image(one: str, other: str) -> bool:
    """Whether two references name one image: containerd writes Docker Hub's host in front."""
    return _bare(one) == _bare(other)


def _bare(reference: str) -> str:
    return reference.removeprefix("docker.io/").removeprefix("library/")
