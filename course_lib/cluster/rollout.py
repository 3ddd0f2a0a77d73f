"""Waiting for a rollout: it ends when the new pods serve, and at once when no waiting will make them.

`judge` says how a rollout stands from what the API returned, and nothing else, so that it can be tried with recorded
objects; `wait` looks again and again. A look every second is three small lists; a watch would save them, and would have
to be taken up anew whenever it is cut, which happens when things go wrong, so when it matters.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from course_lib import waits
from course_lib.cluster import events as noted
from course_lib.cluster import pods, reasons, revisions
from course_lib.cluster.api import Api, Object
from course_lib.cluster.events import Event
from course_lib.cluster.pods import Pod
from course_lib.cluster.problems import Problem, of_pod
from course_lib.cluster.refusals import ApiError
from course_lib.errors import CourseError
from course_lib.lab import display


class RolloutFailed(CourseError):
    """A rollout that waiting won't complete."""

    def __init__(self, what: str, problems: Sequence[Problem], *, why: str, do: str) -> None:
        super().__init__(what, why=why, do=do)
        self.problems = tuple(problems)


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
    problems: tuple[Problem, ...]

    def picture(self) -> str:
        """It as lines of text."""
        signs = {one.about for one in self.problems}
        lines = [f"{'✓' if self.done else '…'} {self.status.name}: {self.waiting_for or self.status.words()}"]
        for one in self.new:
            lines.append(f"  {'✓' if one.ready else '✗' if one.name in signs else '…'} {one.name}  {one.words()}")
        lines += [f"  - {one.name}  {one.words()}, of the template before" for one in self.old]
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


def look(api: Api, namespace: str, name: str) -> Snapshot:
    """What the API says now; events only where something is not ready.

    Raises:
        ApiError: there is no such Deployment, or the server does not answer.
    """
    deployment = api.get("apps/v1", "Deployment", name, namespace)
    sets = revisions.replica_sets(api, deployment)
    uids = {one["metadata"]["uid"] for one in sets}
    found = api.objects("v1", "Pod", namespace, labels=pods.selector(deployment))
    mine = [one for one in found if any(revisions.owned(one, uid) for uid in uids)]
    unready = any(not pods.of(one).ready for one in mine)
    return Snapshot(deployment, sets, mine, noted.events(api, namespace, kind="Pod") if unready else ())


def judge(seen: Snapshot) -> Rollout:
    """How a rollout stands: done as `kubectl rollout status` counts it (pkg/polymorphichelpers/rollout_status.go), and what
    is wrong with the pods of the new template. What is wrong with old ones is what the rollout may be there to mend."""
    now, set_now = status(seen.deployment), revisions.current(seen.deployment, seen.replica_sets)
    uid = set_now["metadata"]["uid"] if set_now else ""
    mine = [one for one in seen.pods if revisions.owned(one, uid)]
    others = [one for one in seen.pods if not revisions.owned(one, uid)]
    leaving = any("deletionTimestamp" in one["metadata"] for one in seen.pods)
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


def wait(api: Api, namespace: str, name: str, *, timeout: float, live: display.Live | None = None) -> Rollout:
    """Waits until a Deployment's pods are all of its current template, and available; draws how it goes.

    Args:
        timeout: seconds. What only time can tell (a slow start) has them all.

    Raises:
        RolloutFailed: waiting is hopeless: the image can't be had, a container crashes again and again, no node takes the
            pod, something that it needs is not there, its pods are refused, its readiness probe asks for what is not there,
            or Kubernetes itself has given up. Names pod, container and reason, with events, log lines and what to do.
        WaitTimeout: it was not there in time; with the same explanation, as far as something is wrong.
        ApiError: there is no such Deployment. While the API server does not answer, it is waited for.
    """
    live = live or display.Live()
    first_seen: dict[tuple[str, str, str], float] = {}
    last: list[Rollout] = []

    def probe() -> Rollout:
        try:
            found = judge(look(api, namespace, name))
        except ApiError as error:
            if error.passing:
                raise waits.NotYet(error.what) from None
            raise
        last[:] = [found]
        live.draw_text(found.picture())
        if found.done:
            return found
        if over := overdue(found.problems, first_seen, time.monotonic()):
            raise _failed(api, namespace, found, over)
        raise waits.NotYet(found.waiting_for)

    def diagnose() -> str:
        return explain(api, namespace, last[0].problems) if last else ""

    return waits.until(
        probe,
        what=f"the rollout of {name}",
        timeout=timeout,
        every=0.15,
        diagnose=diagnose,
        do="Mend what the lines above point at, or give it more time: timeout=…",
    )


def overdue(problems: Iterable[Problem], first_seen: dict[tuple[str, str, str], float], now: float) -> list[Problem]:
    """The problems that have been there for longer than they could mend themselves.

    Args:
        first_seen: when each was seen first; those that are new are added.
        now: seconds, of a clock that only goes forward.
    """
    return [one for one in problems if now - first_seen.setdefault(one.key, now) >= one.patience]


def explain(api: Api, namespace: str, problems: Sequence[Problem]) -> str:
    """Each problem with Kubernetes' words, the events of its pod, its container's last log lines, and what to do."""
    return "\n".join(_text(api, namespace, _told(api, namespace, *one)) for one in _different(problems))


@dataclass(frozen=True)
class _Told:
    """A problem, what its container logged, and what is known of it with these words, too."""

    problem: Problem
    logged: str
    before: str
    alike: int
    """How many pods more have the same."""

    @property
    def known(self) -> reasons.Reason:
        return reasons.of(self.problem.reason, f"{self.problem.message}\n{self.logged}\n{self.before}")


def _different(problems: Sequence[Problem]) -> list[tuple[Problem, int]]:
    """One problem of each sort, and how many pods more have the same; no more than three sorts."""
    sorts: dict[tuple[str, str], list[Problem]] = {}
    for one in problems:
        sorts.setdefault((one.container, one.known.what), []).append(one)
    return [(alike[0], len(alike) - 1) for alike in list(sorts.values())[:3]]


def _told(api: Api, namespace: str, one: Problem, alike: int) -> _Told:
    if not one.container:
        return _Told(one, "", "", alike)
    now = pods.logs(api, namespace, one.about, container=one.container, lines=8)
    before = pods.logs(api, namespace, one.about, container=one.container, lines=8, previous=True)
    return _Told(one, now, "" if before == now else before, alike)


def _text(api: Api, namespace: str, told: _Told) -> str:
    one = told.problem
    more = f" (and {told.alike} more like it)" if told.alike else ""
    where = f"{one.about}, container {one.container}" if one.container else one.about
    lines = [f"{where}: {one.reason}: {told.known.what}{more}"]
    lines += [f"  {line[:400]}" for line in one.message.splitlines()[:6]]
    found = [event for event in noted.events(api, namespace, name=one.about) if event.type == "Warning"]
    lines += [f"  event {event.words()}" for event in found[-3:] if event.message not in one.message]
    for title, said in (("its last log lines", told.logged), ("those of the run before", told.before)):
        lines += [f"  {title}:", *(f"    {line[:240]}" for line in said.splitlines())] if said else []
    return "\n".join([*lines, f"  -> {told.known.do}"])


def _failed(api: Api, namespace: str, found: Rollout, over: Sequence[Problem]) -> RolloutFailed:
    # That Kubernetes gave up is true, and says nothing: the pods' own problems come first.
    own = [one for one in found.problems if one.reason != "ProgressDeadlineExceeded"]
    shown = [one for one in over if one in own] or own or list(over)
    told = [_told(api, namespace, *one) for one in _different(shown)]
    return RolloutFailed(
        f"Deployment {found.status.name} does not get ready: {told[0].known.what}",
        shown,
        why="\n".join(_text(api, namespace, one) for one in told),
        do=told[0].known.do,
    )


def _waiting_for(now: Status) -> str:
    if not now.seen:
        return "the controller to see the change"
    if now.updated < now.wanted:
        return f"{now.updated} of {now.wanted} pods of the new template are made"
    if now.total > now.updated:
        return f"{now.total - now.updated} pods of the old template still run"
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
