"""A Deployment's revisions: each template that it had is kept as a ReplicaSet, and a rollback takes one up again."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from course_lib.cluster import pods
from course_lib.cluster.api import Api, Object
from course_lib.cluster.events import moment
from course_lib.errors import CourseError

#: The controller numbers the templates, and writes the number onto the Deployment and its ReplicaSets.
REVISION = "deployment.kubernetes.io/revision"


@dataclass(frozen=True)
class Revision:
    """One template that a Deployment has, or had."""

    number: int
    replica_set: str
    images: tuple[str, ...]
    replicas: int
    """How many pods it has now."""
    ready: int
    created: datetime
    """UTC."""
    current: bool


def of(deployment: Object, sets: Sequence[Object]) -> list[Revision]:
    """The revisions of a Deployment, the oldest first."""
    now = current(deployment, sets)
    found = [
        Revision(
            number=number(one),
            replica_set=one["metadata"]["name"],
            images=tuple(c["image"] for c in one["spec"]["template"]["spec"]["containers"]),
            replicas=one.get("status", {}).get("replicas", 0),
            ready=one.get("status", {}).get("readyReplicas", 0),
            created=moment(one["metadata"]["creationTimestamp"]),
            current=one is now,
        )
        for one in sets
    ]
    return sorted(found, key=lambda one: one.number)


def replica_sets(api: Api, deployment: Object) -> list[Object]:
    """The ReplicaSets that a Deployment owns."""
    meta = deployment["metadata"]
    found = api.objects("apps/v1", "ReplicaSet", meta["namespace"], labels=pods.selector(deployment))
    return [one for one in found if owned(one, meta["uid"])]


def owned(found: Object, uid: str) -> bool:
    """Whether an object belongs to another, by that one's uid."""
    return any(one["uid"] == uid for one in found["metadata"].get("ownerReferences") or [])


def current(deployment: Object, sets: Sequence[Object]) -> Object | None:
    """The ReplicaSet of the template that a Deployment has now; None while the controller has not made it.

    It is told by the template itself, as the controller does it (`FindNewReplicaSet`): the revision's number is only
    written a moment later.
    """
    wanted = deployment["spec"]["template"]
    return next((one for one in sets if template(one) == wanted), None)


def previous(deployment: Object, sets: Sequence[Object], to: int | None = None) -> Object:
    """The ReplicaSet to go back to: the one before the current revision, or the one of a number.

    Raises:
        CourseError: there is none.
    """
    name, now = deployment["metadata"]["name"], current(deployment, sets)
    others = sorted((one for one in sets if one is not now), key=number)
    kept = ", ".join(str(number(one)) for one in others) or "none"
    do = f"Besides the current revision there is {kept}; how many are kept says spec.revisionHistoryLimit."
    if to is not None:
        others = [one for one in others if number(one) == to]
    if not others:
        wanted = f"no revision {to}" if to is not None else "no revision before this one"
        raise CourseError(f"Deployment {name} has {wanted}", do=do)
    return others[-1]


def template(replica_set: Object) -> Object:
    """A ReplicaSet's template without the label that tells its pods apart: as the Deployment had it."""
    found: Object = copy.deepcopy(replica_set["spec"]["template"])
    found["metadata"].get("labels", {}).pop(pods.TEMPLATE_HASH, None)
    return found


def number(found: Object) -> int:
    """The revision that is written on a Deployment or a ReplicaSet; 0 where none is."""
    return int((found["metadata"].get("annotations") or {}).get(REVISION, 0))
