"""What a learner's own manifests have to say, read before anything of them runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from course_lib.cluster import serving, usage
from course_lib.cluster.api import Object
from course_lib.exercises import cluster_autoscaler as scaling
from course_lib.exercises import cluster_checks as checks
from course_lib.exercises import cluster_ending as ending
from course_lib.exercises import cluster_scenes as scenes
from course_lib.exercises.cluster_checks import require

_KINDS = (
    "Deployment", "Service", "ConfigMap", scaling.KIND, "PodDisruptionBudget", "ServiceAccount", "NetworkPolicy",
)  # fmt: skip
#: Two cores have to bear some of them.
_MOST_REQUEST, _MOST_LIMIT = 0.25, 0.5


@dataclass(frozen=True)
class Own:
    """A learner's manifests, read."""

    objects: list[Object]
    deployment: Object
    scaler: Object
    target: float
    """Cores that the autoscaler wants each replica to use."""
    limit: float
    """Cores that a replica gets at most."""
    least: int
    """Replicas while nobody asks."""


def read(folder: Path) -> Own:
    """The manifests of a folder, with all that is wanted in them.

    Raises:
        NotYet: a part is missing, or says something else.
    """
    found = checks.objects(folder, kinds=_KINDS)
    deployment = checks.named(found, "Deployment", serving.DEPLOYMENT)
    service = checks.named(found, "Service", serving.SERVICE)
    scaler = checks.named(found, scaling.KIND, serving.DEPLOYMENT)
    budget = checks.named(found, "PodDisruptionBudget", serving.DEPLOYMENT)
    _require_image(deployment)
    _require_closed(deployment)
    _require_bounded(deployment)
    _require_probed(deployment)
    _require_key(deployment)
    _require_settings(found, deployment)
    ending.require_some_stay(deployment, replicas=max(2, scaling.bounds(scaler)[0]))
    ending.require_time_to_end(found, deployment)
    _require_reached(service, deployment)
    target = scaling.require_scales(scaler, deployment)
    require(
        checks.part(deployment, "spec", "replicas") is None,
        "the Deployment sets replicas, too: each time it is applied it takes the autoscaler's number back",
        expected="no replicas there: the number is the autoscaler's",
        look="spec.replicas of the Deployment",
    )
    least, _ = scaling.bounds(scaler)
    require(least <= 2, f"{least} replicas while nobody asks", expected="one or two", look="minReplicas")
    _require_evictable(budget, deployment, least)
    return Own(found, deployment, scaler, target, checks.limit(checks.server(deployment), "cpu"), least)


def _require_image(deployment: Object) -> None:
    container = checks.server(deployment)
    image = checks.part(container, "image")
    require(image == serving.IMAGE, f"the container's image is {image}", expected=f"{serving.IMAGE}, which is on the nodes", look="image")  # fmt: skip
    require(
        checks.part(container, "imagePullPolicy") != "Always",
        "with imagePullPolicy Always a registry is asked at each start, and none has heard of an image that was loaded",
        expected="IfNotPresent",
        look="imagePullPolicy",
    )


def _require_closed(deployment: Object) -> None:
    """No root, no capability, no place to write to."""
    own = checks.mapping(checks.server(deployment), "securityContext")
    both = checks.mapping(deployment, "spec", "template", "spec", "securityContext") | own
    for fine, seen, look in (
        (both.get("runAsNonRoot") is True, "the server may run as root", "runAsNonRoot"),
        (own.get("readOnlyRootFilesystem") is True, "the server may write to its root", "readOnlyRootFilesystem"),
        (own.get("allowPrivilegeEscalation") is False, "a process may become more than it is", "allowPrivilegeEscalation"),
        ("ALL" in checks.each(own, "capabilities", "drop"), "the server keeps capabilities", "capabilities: drop"),
    ):  # fmt: skip
        require(fine, seen, expected="what a burglar finds little with", look=f"securityContext, {look}")


def _require_bounded(deployment: Object) -> None:
    container = checks.server(deployment)
    for which in ("requests", "limits"):
        for resource in ("cpu", "memory"):
            place = f"resources.{which}.{resource}"
            require(checks.part(container, "resources", which, resource) is not None, f"there is no {place}", expected="one", look=place)  # fmt: skip
    request, limit = usage.amount(checks.part(container, "resources", "requests", "cpu")), checks.limit(container, "cpu")  # fmt: skip
    require(
        request <= _MOST_REQUEST and limit <= _MOST_LIMIT,
        f"a replica requests {request * 1000:.0f}m of CPU and may take {limit * 1000:.0f}m",
        expected=f"at most {_MOST_REQUEST * 1000:.0f}m and {_MOST_LIMIT * 1000:.0f}m: two cores have to bear several",
        look="resources",
    )


def _require_probed(deployment: Object) -> None:
    container = checks.server(deployment)
    for which in ("startupProbe", "readinessProbe", "livenessProbe"):
        require(bool(checks.part(container, which)), f"there is no {which}", expected="all three", look=which)
    ending.require_asks_for_readiness(deployment)
    for which in ("startupProbe", "livenessProbe"):
        require(
            checks.part(container, which, "httpGet", "path") != "/ready",
            f"the {which} asks /ready, which is 503 while it drains or is unwell: it would be killed for that",
            expected="/health",
            look=which,
        )


def _require_key(deployment: Object) -> None:
    container = checks.server(deployment)
    open_key = any(checks.part(one, "name") == "API_KEYS" for one in checks.each(container, "env"))
    require(not open_key, "the key stands in the environment", expected="a file of a mounted Secret", look="API_KEYS")
    volumes = {
        str(checks.part(one, "name"))
        for one in checks.each(deployment, "spec", "template", "spec", "volumes")
        if checks.part(one, "secret", "secretName") == serving.KEYS
    }
    mounted = {str(checks.part(one, "name")) for one in checks.each(container, "volumeMounts")}
    require(
        bool(volumes & mounted),
        f"the Secret {serving.KEYS} is not mounted",
        expected="the key as a file in the container",
        look="volumes, volumeMounts",
    )


def _require_settings(found: Sequence[Object], deployment: Object) -> None:
    maps = {str(one["metadata"]["name"]) for one in found if one["kind"] == "ConfigMap"}
    container = checks.server(deployment)
    used = {str(checks.part(one, "configMapRef", "name")) for one in checks.each(container, "envFrom")}
    used |= {str(checks.part(one, "valueFrom", "configMapKeyRef", "name")) for one in checks.each(container, "env")}
    require(
        bool(maps & used),
        "no setting comes from a ConfigMap of these manifests",
        expected="the server's settings in a ConfigMap",
        look="envFrom",
    )
    require(
        "API_KEYS" not in ending.settings(found, deployment),
        "the key stands in a ConfigMap",
        expected="a file of a mounted Secret",
        look="API_KEYS",
    )


def _require_reached(service: Object, deployment: Object) -> None:
    ports = [checks.part(one, "nodePort") for one in checks.each(service, "spec", "ports")]
    require(
        checks.part(service, "spec", "type") == "NodePort" and scenes.EXERCISE_PORT in ports,
        f"the Service is of type {checks.part(service, 'spec', 'type') or 'ClusterIP'} with nodePort {ports}",
        expected=f"NodePort {scenes.EXERCISE_PORT}, which leads outside",
        look="type, nodePort",
    )
    _require_matches(checks.part(service, "spec", "selector"), deployment, "the Service")


def _require_evictable(budget: Object, deployment: Object, least: int) -> None:
    require(budget["apiVersion"] == "policy/v1", f"the budget is of {budget['apiVersion']}", expected="policy/v1", look="apiVersion")  # fmt: skip
    _require_matches(checks.part(budget, "spec", "selector", "matchLabels"), deployment, "the PodDisruptionBudget")
    kept, gone = checks.part(budget, "spec", "minAvailable"), checks.part(budget, "spec", "maxUnavailable")
    require(kept is not None or gone is not None, "the budget says nothing", expected="one number", look="maxUnavailable")  # fmt: skip
    allowed = least - _share(kept, least) if gone is None else _share(gone, least)
    require(
        allowed > 0,
        f"with {least} replicas the budget allows no pod to be evicted: `kubectl drain` would wait for ever",
        expected="one at a time",
        look="maxUnavailable, minAvailable",
    )


def _require_matches(selector: Any, deployment: Object, who: str) -> None:
    labels = checks.mapping(deployment, "spec", "template", "metadata", "labels")
    fine = isinstance(selector, dict) and bool(selector) and selector.items() <= labels.items()
    require(fine, f"{who} looks for {selector}, and the pods carry {labels}", expected="labels of the pods", look="selector")  # fmt: skip


def _share(said: Any, of: int) -> int:
    """A number or a percentage of pods, rounded up as budgets do."""
    text = str(said)
    if text.endswith("%") and text[:-1].isdigit():
        return math.ceil(of * int(text[:-1]) / 100)
    return int(text) if text.isdigit() else 0
