"""The inference server on the bench's cluster: as k8s/ has it, and with some of its manners taken away, to see what they are worth."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any

from course_lib import waits
from course_lib.cluster import Deployer, KindCluster, make_key, manifests, pods, serving
from course_lib.cluster.api import Object
from course_lib.images import course_image
from course_lib.settings import CHECKOUT

OVERLAY = CHECKOUT / "k8s" / "overlays" / "local"
REPLICAS = 3


def image_on_nodes(cluster: KindCluster) -> None:
    """Copies the course's image onto the nodes, under the name that the overlay has."""
    cluster.load(course_image.ensure_inference_image(), name=serving.IMAGE)


def deployer(cluster: KindCluster) -> Deployer:
    """A Deployer for the server's namespace, with the server's key in it."""
    found = Deployer(serving.NAMESPACE, kubeconfig=cluster.kubeconfig, kubectl=cluster.source)
    make_key(found)
    return found


def _as_it_is(deployment: Object) -> None:
    """Nothing taken away."""


def _without_goodbye(deployment: Object) -> None:
    """A pod ends as soon as it is told to, and one may be missing."""
    server = _server(deployment)
    del server["lifecycle"]
    server["env"].append({"name": "SHUTDOWN_DELAY_SECONDS", "value": "0"})  # stands above what the ConfigMap says
    deployment["spec"]["strategy"] = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 1}}


def _without_probes(deployment: Object) -> None:
    """Nor does anybody ask whether a new pod can answer yet."""
    _without_goodbye(deployment)
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        del _server(deployment)[probe]


#: Each way by its name in the figures: what is changed in the Deployment.
WAYS: Mapping[str, Callable[[Object], None]] = {
    "as in k8s/": _as_it_is,
    "no preStop, no delay, maxUnavailable 1": _without_goodbye,
    "and no probes": _without_probes,
}


def objects(way: str, cluster: KindCluster) -> list[Object]:
    """The overlay's objects in one of the WAYS, with REPLICAS replicas and nobody who changes that number."""
    found = deepcopy(manifests.read(OVERLAY, kubectl=cluster.source))
    kept = [one for one in found if one["kind"] != "HorizontalPodAutoscaler"]
    deployment = next(one for one in kept if one["kind"] == "Deployment")
    deployment["spec"]["replicas"] = REPLICAS
    WAYS[way](deployment)
    return kept


def put(way: str, cluster: KindCluster, found: Deployer) -> None:
    """Puts one of the WAYS in the place of another, and waits until its pods serve, and no others are there any more.

    The other is deleted: an API server of 1.20 keeps an empty `preStop` where an applied one is left out, and refuses that.
    """
    cluster.kubectl(
        "delete", f"deployment/{serving.DEPLOYMENT}", f"--namespace={serving.NAMESPACE}", "--ignore-not-found",
        show=False, timeout=180,
    )  # fmt: skip
    found.apply(objects(way, cluster))
    found.wait(serving.DEPLOYMENT)
    settled(found)


def settled(
    found: Deployer,
    *,
    timeout: float = 120,
    seen: Callable[[list[Object]], None] = lambda each: None,
    besides: frozenset[str] = frozenset(),
) -> None:
    """Waits until REPLICAS pods are ready and no other is there.

    Args:
        seen: is shown the pods of each look.
        besides: names of pods that have to be gone.

    Raises:
        WaitTimeout: it does not come to that.
    """

    def probe() -> None:
        each = pods_of(found)
        seen(each)
        now = [pods.of(one) for one in each]
        if len(now) != REPLICAS or not all(
            one.ready and not one.terminating and one.name not in besides for one in now
        ):
            raise waits.NotYet("; ".join(f"{one.name} {one.words()}" for one in now))

    waits.until(probe, what=f"{REPLICAS} pods that are ready, and no others", timeout=timeout, every=0.05)


def pods_of(found: Deployer) -> list[Object]:
    """The server's pods as the API has them, those on their way out, too."""
    return found.api.objects("v1", "Pod", found.namespace, labels="app.kubernetes.io/name=inference-server")


def _server(deployment: Object) -> dict[str, Any]:
    (server,) = deployment["spec"]["template"]["spec"]["containers"]
    found: dict[str, Any] = server
    return found
