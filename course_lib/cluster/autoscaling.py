"""HorizontalPodAutoscalers: how many replicas a Deployment has, by what its pods use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from course_lib.cluster.api import Api, Object
from course_lib.errors import CourseError

VERSION, KIND = "autoscaling/v2", "HorizontalPodAutoscaler"


@dataclass(frozen=True)
class Autoscaler:
    """An autoscaler, and what it makes of the load."""

    name: str
    minimum: int
    maximum: int
    current: int
    desired: int
    """What it has last decided on."""
    used: dict[str, int | None]
    """By resource: percent of the request, the mean over the pods; None where nothing is known (yet)."""
    targets: dict[str, int]
    """By resource: percent that it steers for."""
    conditions: dict[str, str]
    """AbleToScale, ScalingActive, ScalingLimited: `True` or `False`, the reason, the message."""

    def words(self) -> str:
        """It in a line."""
        used = ", ".join(
            f"{key} {'?' if (u := self.used.get(key)) is None else u} of {goal} %" for key, goal in self.targets.items()
        )
        return f"{self.current} -> {self.desired} replicas ({self.minimum} to {self.maximum}); {used}"


def of(found: Object) -> Autoscaler:
    """An autoscaler as the API has it."""
    spec, status = found["spec"], found.get("status", {})
    targets = {
        one["resource"]["name"]: one["resource"]["target"].get("averageUtilization")
        for one in spec.get("metrics") or []
        if one["type"] == "Resource"
    }
    seen = {
        one["resource"]["name"]: one["resource"]["current"].get("averageUtilization")
        for one in status.get("currentMetrics") or []
        if one.get("type") == "Resource"
    }
    return Autoscaler(
        name=found["metadata"]["name"],
        minimum=spec.get("minReplicas", 1),
        maximum=spec["maxReplicas"],
        current=status.get("currentReplicas", 0),
        desired=status.get("desiredReplicas", 0),
        used={key: seen.get(key) for key in targets},
        targets={key: goal for key, goal in targets.items() if goal is not None},
        conditions={
            one["type"]: ": ".join(part for part in (one["status"], one.get("reason"), one.get("message")) if part)
            for one in status.get("conditions") or []
        },
    )


def manifest(deployment: Object, *, minimum: int, maximum: int, cpu: int, behavior: dict[str, Any] | None) -> Object:
    """The autoscaler of a Deployment, under its name.

    Raises:
        CourseError: the numbers contradict each other, or a container requests no CPU, of which it would take percents.
    """
    name = deployment["metadata"]["name"]
    if not 1 <= minimum <= maximum:
        raise CourseError(
            f"an autoscaler can't keep between {minimum} and {maximum} replicas", do="Take 1 <= minimum <= maximum."
        )
    if cpu < 1:
        raise CourseError(f"an autoscaler can't steer for {cpu} % of the CPU", do="Take a percentage above 0, as 70.")
    for one in deployment["spec"]["template"]["spec"]["containers"]:
        resources = one.get("resources") or {}
        if "cpu" not in {**(resources.get("limits") or {}), **(resources.get("requests") or {})}:
            raise CourseError(
                f"container {one['name']} of Deployment {name} requests no CPU",
                why="An autoscaler steers for percents of what is requested, and 70 % of nothing is nothing.",
                do="Give it resources.requests.cpu, as `100m`.",
            )
    return {
        "apiVersion": VERSION,
        "kind": KIND,
        "metadata": {"name": name, "labels": dict(deployment["metadata"].get("labels") or {})},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
            "minReplicas": minimum,
            "maxReplicas": maximum,
            "metrics": [
                {
                    "type": "Resource",
                    "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": cpu}},
                }
            ],
            **({"behavior": behavior} if behavior else {}),
        },
    }


def read(api: Api, namespace: str, name: str) -> Autoscaler:
    """An autoscaler as it is now.

    Raises:
        ApiError: there is none of that name.
    """
    return of(api.get(VERSION, KIND, name, namespace))
