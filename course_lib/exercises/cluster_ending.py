"""How pods are replaced, read from a manifest: who may be missing, when a new one gets requests, how an old one ends."""

from __future__ import annotations

import re
from collections.abc import Sequence

from course_lib.cluster.api import Object
from course_lib.exercises import cluster_checks as checks
from course_lib.exercises.cluster_checks import require
from course_lib.lab.exercise import NotYet

#: The server's own, where a manifest does not set them (docker/inference-server/SETTINGS.md).
_DEFAULTS = {"SHUTDOWN_DELAY_SECONDS": 0.0, "DRAIN_SECONDS": 8.0}
#: Kubernetes' own.
_GRACE = 30.0
#: For so long at most may one pod that hangs hold up a rollout, a drain of its node, and a check.
_LONGEST = 90.0


def settings(found: Sequence[Object], deployment: Object) -> dict[str, str]:
    """The variables of a Deployment's server: from ConfigMaps of the same manifests, and its own, which win."""
    container = checks.server(deployment)
    maps = {str(one["metadata"]["name"]): checks.mapping(one, "data") for one in found if one["kind"] == "ConfigMap"}
    read: dict[str, str] = {}
    for source in checks.each(container, "envFrom"):
        read |= {
            key: str(value)
            for key, value in checks.mapping(maps, str(checks.part(source, "configMapRef", "name"))).items()
        }
    for one in checks.each(container, "env"):
        source = checks.mapping(one, "valueFrom", "configMapKeyRef")
        taken = checks.part(maps, str(source.get("name")), str(source.get("key")))
        value = checks.part(one, "value") if taken is None else taken
        if value is not None:
            read[str(checks.part(one, "name"))] = str(value)
    return read


def require_some_stay(deployment: Object, *, replicas: int) -> None:
    """Of so many replicas some are there at each moment of a rollout.

    Raises:
        NotYet: all may be missing at once.
    """
    strategy = checks.mapping(deployment, "spec", "strategy")
    require(
        checks.part(strategy, "type") != "Recreate",
        "with Recreate all old pods end before a new one begins",
        expected="an old pod goes when a new one is ready",
        look="spec.strategy.type",
    )
    said = checks.part(strategy, "rollingUpdate", "maxUnavailable")
    missing = _share("25%" if said is None else said, replicas)
    require(
        missing < replicas,
        f"with maxUnavailable {said}, all of {replicas} pods may be missing at once",
        expected="an old pod goes when a new one is ready",
        look="spec.strategy.rollingUpdate",
    )


def require_asks_for_readiness(deployment: Object) -> None:
    """The readiness probe, where there is one, asks what is 503 while the server loads and while it drains.

    Raises:
        NotYet: it asks something else.
    """
    probe = checks.part(checks.server(deployment), "readinessProbe")
    if not probe:
        return
    command = " ".join(map(str, checks.each(probe, "exec", "command")))
    asked = str(checks.part(probe, "httpGet", "path") or command or "whether the port is open")
    require(
        asked == "/ready" or "--ready" in asked,
        f"the readinessProbe asks {asked}, which goes well while the models are still being loaded",
        expected="what says whether it may get work",
        look="readinessProbe, and the server's routes: docker/inference-server/README.md",
    )


def require_time_to_end(found: Sequence[Object], deployment: Object) -> float:
    """A pod that is told to end still answers while the nodes learn of it, finishes what it runs, and is killed after
    that and not before; returns the longest it may take, in seconds.

    Raises:
        NotYet: it refuses at once, is killed too early, or holds up everybody.
    """
    pod = checks.part(deployment, "spec", "template", "spec")
    read = settings(found, deployment)
    hook, delay, drain = _hook(checks.server(deployment)), _seconds(read, "SHUTDOWN_DELAY_SECONDS"), _seconds(read, "DRAIN_SECONDS")  # fmt: skip
    said = checks.number(pod, "terminationGracePeriodSeconds")
    grace = _GRACE if said is None else said
    require(
        hook is None or hook + delay >= 1,
        "a pod refuses requests as soon as it is told to end, and until each node has heard of that it is still sent some",
        expected="some seconds more in which it answers",
        look="lifecycle.preStop; the server's own SHUTDOWN_DELAY_SECONDS does the same",
    )
    total = (hook or 0) + delay + drain
    require(
        grace > total,
        f"a pod is killed after {grace:g} s, and may take {total:g} s to end: {hook or 0:g} s of preStop, {delay:g} s in which it sends its clients away, {drain:g} s for what it runs",
        expected="more time than these together",
        look="terminationGracePeriodSeconds",
    )
    require(
        grace <= _LONGEST,
        f"a pod that hangs is killed only after {grace:g} s",
        expected=f"at most {_LONGEST:g} s: for so long it holds up every rollout",
        look="terminationGracePeriodSeconds",
    )
    return total


def _hook(container: Object) -> float | None:
    """Seconds that a container's preStop hook takes: 0 without one, None where that can't be read from it."""
    hook = checks.part(container, "lifecycle", "preStop")
    if not hook:
        return 0.0
    if (slept := checks.number(hook, "sleep", "seconds")) is not None:
        return slept
    command = " ".join(map(str, checks.each(hook, "exec", "command")))
    said = re.search(r"\bsleep\s+(\d+(?:\.\d+)?)", command)
    return float(said[1]) if said else None


def _seconds(read: dict[str, str], name: str) -> float:
    said = read.get(name)
    try:
        return float(said) if said else _DEFAULTS[name]
    except ValueError:
        raise NotYet(f"{name} is {said!r}", expected="a number of seconds", look="the server's settings") from None


def _share(said: object, of: int) -> int:
    """A number or a percentage of pods, rounded down as maxUnavailable is."""
    text = str(said)
    if text.endswith("%") and text[:-1].isdigit():
        return of * int(text[:-1]) // 100
    return int(text) if text.isdigit() else 0
