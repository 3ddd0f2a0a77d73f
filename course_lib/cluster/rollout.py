"""How a rollout stands: judged from what the API returned and nothing else, so that recorded objects do, too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from course_lib.cluster import pods, revisions
from course_lib.cluster.api import Object
from course_lib.cluster.events import Event
from course_lib.cluster.pods import Pod
from course_lib.cluster.problems import Problem, of_pod


@dataclass(frozen=True)
class Status:
    """A Deployment's own account of itself."""

    name: str
    wanted: int
    """Replicas that are asked for."""
    updated: int
    """Pods of the current template."""
    ready: int
    """Pods, old and new, that Services send requests to."""
    available: int
    """Pods that have been ready for minReadySeconds."""
    total: int
    """Pods, old and new, without those that are terminating."""
    revision: int
    images: tuple[str, ...]
    conditions: dict[str, str]
    """Available, Progressing, ReplicaFailure: `True` or `False`, the reason, the message."""
    seen: bool
    """Whether the controller has seen the latest change."""

    def words(self) -> str:
        """It in a line."""
        return f"{self.updated} of {self.wanted} updated, {self.ready} ready, {self.available} available"


@dataclass(frozen=True)
class Snapshot:
    """What the API says about a Deployment at a moment."""

    deployment: Object
    replica_sets: Sequence[Object]
    pods: Sequence[Object]
    events: Sequence[Event] = ()


@dataclass(frozen=True)
class Rollout:
    """How far a rollout is."""

    status: Status
    done: bool
    waiting_for: str
    """Empty when it is done."""
    new: tuple[Pod, ...]
    """The pods of the current template."""
    old: tuple[Pod, ...]
    """Those of earlier ones, and those on their way out."""
    problems: tuple[Problem, ...]

    def picture(self) -> str:
        """It as lines of text."""
        signs = {one.about for one in self.problems}
        lines = [f"{'✓' if self.done else '…'} {self.status.name}: {self.waiting_for or self.status.words()}"]
        for one in self.new:
            lines.append(f"  {'✓' if one.ready else '✗' if one.name in signs else '…'} {one.name}  {one.words()}")
        lines += [f"  - {one.name}  {one.words()}, on its way out" for one in self.old]
        return "\n".join([*lines, *(f"  {one.words()}" for one in self.problems)])


def status(deployment: Object) -> Status:
    """A Deployment's status as the API has it; numbers that are 0 are left out there."""
    meta, spec, found = deployment["metadata"], deployment["spec"], deployment.get("status", {})
    conditions = {
        one["type"]: ": ".join(part for part in (one["status"], one.get("reason"), one.get("message")) if part)
        for one in found.get("conditions") or []
    }
    return Status(
        name=meta["name"],
        wanted=spec.get("replicas", 1),
        updated=found.get("updatedReplicas", 0),
        ready=found.get("readyReplicas", 0),
        available=found.get("availableReplicas", 0),
        total=found.get("replicas", 0),
        revision=revisions.number(deployment),
        images=tuple(one["image"] for one in spec["template"]["spec"]["containers"]),
        conditions=conditions,
        seen=found.get("observedGeneration", 0) >= meta.get("generation", 0),
    )


def judge(seen: Snapshot) -> Rollout:
    """How a rollout stands: done as `kubectl rollout status` counts it (pkg/polymorphichelpers/rollout_status.go), and what
    is wrong with the pods of the new template. What is wrong with old ones is what the rollout may be there to mend."""
    now, set_now = status(seen.deployment), revisions.current(seen.deployment, seen.replica_sets)
    uid = set_now["metadata"]["uid"] if set_now else ""
    leaving = any("deletionTimestamp" in one["metadata"] for one in seen.pods)
    # Of the current template, too, pods may be on their way out: those of an earlier turn, or of a larger number.
    mine = [one for one in seen.pods if revisions.owned(one, uid) and "deletionTimestamp" not in one["metadata"]]
    others = [one for one in seen.pods if one not in mine]
    problems = [problem for one in mine for problem in of_pod(one, seen.events, held=leaving)]
    problems += _of_deployment(seen.deployment, now, held=leaving)
    waiting_for = _waiting_for(now) if set_now or not now.seen else "its ReplicaSet to be made"
    return Rollout(
        status=now,
        done=not waiting_for,
        waiting_for=waiting_for,
        new=tuple(sorted(map(pods.of, mine), key=lambda one: one.name)),
        old=tuple(sorted(map(pods.of, others), key=lambda one: one.name)),
        problems=tuple(problems) if waiting_for else (),
    )


def _waiting_for(now: Status) -> str:
    if not now.seen:
        return "the controller to see the change"
    if now.updated < now.wanted:
        return f"{now.updated} of {now.wanted} pods of the new template are made"
    if now.total > now.updated:
        return f"{now.total - now.updated} pods of the old template still run"
    if now.updated > now.wanted:  # scaled down: the ReplicaSet has not yet counted again
        return f"{now.updated - now.wanted} pods too many still run"
    if now.available < now.updated:
        return f"{now.available} of {now.updated} pods are available"
    return ""


def _of_deployment(deployment: Object, now: Status, *, held: bool) -> list[Problem]:
    found = []
    if deployment["spec"].get("paused"):
        found.append(Problem(now.name, "", "Paused", ""))
    for one in deployment.get("status", {}).get("conditions") or []:
        if one["type"] == "ReplicaFailure" and one["status"] == "True":
            found.append(Problem(now.name, "", one.get("reason", ""), one.get("message", ""), held=held))
        if now.seen and one["type"] == "Progressing" and one.get("reason") == "ProgressDeadlineExceeded":
            found.append(Problem(now.name, "", one["reason"], one.get("message", "")))
    return found
