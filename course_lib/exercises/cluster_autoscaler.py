"""An autoscaler, read before it is tried: has it something to scale, a figure that more replicas change, and time to breathe?"""

from __future__ import annotations

from course_lib.cluster import serving, usage
from course_lib.cluster.api import Object
from course_lib.errors import CourseError
from course_lib.exercises import cluster_checks as checks
from course_lib.exercises.cluster_checks import require
from course_lib.lab.exercise import NotYet

KIND, VERSION = "HorizontalPodAutoscaler", "autoscaling/v2"
#: More do not fit on two cores beside the cluster itself.
MOST = 4
#: An autoscaler leaves the count alone while it is off its target by less than this share.
_TOLERANCE = 0.1
#: Kubernetes' own windows, in seconds.
_UP, _DOWN = 0, 300


def target(scaler: Object, deployment: Object) -> float:
    """The CPU, in cores, that an autoscaler wants each replica to use.

    Raises:
        NotYet: it steers by something else, or for what a replica can't reach.
    """
    container = checks.server(deployment)
    metrics = [
        checks.mapping(one, "resource") or checks.mapping(one, "containerResource")
        for one in checks.each(scaler, "spec", "metrics")
    ]
    cpu = [checks.part(one, "target") for one in metrics if checks.part(one, "name") == "cpu"]
    require(
        bool(cpu),
        f"the autoscaler does not look at the CPU, but at {_names(scaler)}",
        expected="a figure that goes down when a replica is added",
        look="spec.metrics: type Resource, name cpu",
    )
    request, limit = _amount(container, "requests"), _amount(container, "limits")
    share, value = checks.part(cpu[0], "averageUtilization"), checks.part(cpu[0], "averageValue")
    require(
        share is not None or value is not None,
        "the autoscaler has no target for the CPU that is a mean over the pods",
        expected="averageUtilization, in percent of the request",
        look="spec.metrics, target",
    )
    try:
        wanted = request * float(share) / 100 if share is not None else usage.amount(value)
    except (ValueError, TypeError, CourseError):
        raise NotYet(f"the target is {share or value!r}", expected="a number", look="spec.metrics, target") from None
    require(
        wanted * (1 + _TOLERANCE) < limit,
        f"the target is {wanted * 1000:.0f}m of CPU for each replica, and a replica gets {limit * 1000:.0f}m at most: it is never seen above its target",
        expected="a target that is passed while there is CPU left, and by more than the tenth that an autoscaler overlooks",
        look="averageUtilization: of what is it a percentage?",
    )
    return wanted


def require_scales(scaler: Object, deployment: Object) -> float:
    """It scales this Deployment between one or two and some replicas, quickly up and slowly down; returns its target.

    Raises:
        NotYet: it does not.
    """
    version = scaler["apiVersion"]
    require(version == VERSION, f"the autoscaler is of {version}", expected=VERSION, look="apiVersion")
    aims = checks.mapping(scaler, "spec", "scaleTargetRef")
    require(
        (aims.get("apiVersion"), aims.get("kind"), aims.get("name")) == ("apps/v1", "Deployment", serving.DEPLOYMENT),
        f"the autoscaler scales {aims.get('kind')} {aims.get('name')} of {aims.get('apiVersion')}",
        expected=f"Deployment {serving.DEPLOYMENT} of apps/v1",
        look="spec.scaleTargetRef",
    )
    least, most = bounds(scaler)
    require(
        1 <= least < most,
        f"the autoscaler has nowhere to go between {least} and {most} replicas",
        expected="fewer at least than at most",
        look="minReplicas, maxReplicas",
    )
    require(most <= MOST, f"up to {most} replicas", expected=f"at most {MOST}: two cores have to bear them", look="maxReplicas")  # fmt: skip
    wanted = target(scaler, deployment)
    up = window(scaler, "scaleUp", _UP)
    require(
        up <= 30,
        f"it waits {up:g} s before it adds a replica, while requests are waiting",
        expected="at most 30 s",
        look="behavior.scaleUp.stabilizationWindowSeconds",
    )
    down = window(scaler, "scaleDown", _DOWN)
    require(
        down >= 60,
        f"it takes replicas away {down:g} s after the load has fallen, and has to start them again at the next breath",
        expected="at least 60 s: it must not flap",
        look="behavior.scaleDown.stabilizationWindowSeconds",
    )
    return wanted


def bounds(scaler: Object) -> tuple[int, int]:
    """The fewest and the most replicas."""
    least, most = checks.part(scaler, "spec", "minReplicas"), checks.part(scaler, "spec", "maxReplicas")
    try:
        return (1 if least is None else int(least)), int(most)
    except (ValueError, TypeError):
        raise NotYet(
            f"between {least} and {most} replicas", expected="whole numbers", look="minReplicas, maxReplicas"
        ) from None


def window(scaler: Object, direction: str, otherwise: float) -> float:
    """Seconds for which a direction of `behavior` looks back."""
    said = checks.number(scaler, "spec", "behavior", direction, "stabilizationWindowSeconds")
    return otherwise if said is None else said


def _amount(container: Object, which: str) -> float:
    said = checks.part(container, "resources", which, "cpu")
    place = f"resources.{which}.cpu"
    require(said is not None, f"the container has no {place}", expected="one", look=place)
    try:
        return usage.amount(said)
    except CourseError as error:
        raise NotYet(error.what, expected="an amount of CPU", look=place) from None


def _names(scaler: Object) -> str:
    each = [
        checks.part(one, "resource", "name") or checks.part(one, "type")
        for one in checks.each(scaler, "spec", "metrics")
    ]
    return ", ".join(map(str, each)) or "nothing"
