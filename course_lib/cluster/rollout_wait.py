"""Waiting for a rollout: it ends when the new pods serve, and at once when no waiting will make them.

A look is three small lists, every second or so. A watch would save them, and would have to be taken up anew whenever it
is cut, which happens when things go wrong, so when it matters.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from course_lib import waits
from course_lib.cluster import events, pods, reasons, revisions
from course_lib.cluster.api import Api
from course_lib.cluster.events import Event
from course_lib.cluster.problems import Problem
from course_lib.cluster.refusals import ApiError
from course_lib.cluster.rollout import Rollout, Snapshot, judge
from course_lib.errors import CourseError
from course_lib.lab import display


class RolloutFailed(CourseError):
    """A rollout that waiting won't complete."""

    def __init__(self, what: str, problems: Sequence[Problem], *, why: str, do: str) -> None:
        super().__init__(what, why=why, do=do)
        self.problems = tuple(problems)


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
        found = judge(look(api, namespace, name))
        last[:] = [found]
        live.draw_text(found.picture())
        if found.done:
            return found
        if over := overdue(found.problems, first_seen, time.monotonic()):
            raise _failed(api, namespace, found, over)
        raise waits.NotYet(found.waiting_for)

    def diagnose() -> str:
        return (explain(api, namespace, last[0].problems) or last[0].picture()) if last else ""

    return waits.until(
        probe,
        what=f"the rollout of {name}",
        timeout=timeout,
        every=0.1,
        diagnose=diagnose,
        do="Mend what the lines above point at, or give it more time: timeout=…",
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
    return Snapshot(deployment, sets, mine, _events(api, namespace, kind="Pod") if unready else ())


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
    now, before = _logs(api, namespace, one)
    tries = 5 if "exit code" in one.message else 0  # between two runs the kubelet has neither for a moment
    while tries and not (now or before):
        time.sleep(1)
        tries -= 1
        now, before = _logs(api, namespace, one)
    return _Told(one, now, "" if before == now else before, alike)


def _logs(api: Api, namespace: str, one: Problem) -> tuple[str, str]:
    """Of this run, and of the one before."""
    return _log(api, namespace, one, previous=False), _log(api, namespace, one, previous=True)


def _text(api: Api, namespace: str, told: _Told) -> str:
    one = told.problem
    more = f" (and {told.alike} more like it)" if told.alike else ""
    where = f"{one.about}, container {one.container}" if one.container else one.about
    lines = [f"{where}: {one.reason}: {told.known.what}{more}"]
    lines += [f"  {line[:400]}" for line in one.message.splitlines()[:6]]
    found = _events(api, namespace, name=one.about)
    warnings = [event for event in found if event.type == "Warning" and event.message not in one.message]
    lines += [f"  event {event.words()}" for event in warnings[-3:]]
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


# Both only help to explain: who may not read them, or can't be told them now, is told the rest.


def _events(api: Api, namespace: str, *, kind: str = "", name: str = "") -> list[Event]:
    try:
        return events.events(api, namespace, kind=kind, name=name)
    except ApiError:
        return []


def _log(api: Api, namespace: str, one: Problem, *, previous: bool) -> str:
    try:
        return pods.logs(api, namespace, one.about, container=one.container, lines=8, previous=previous)
    except ApiError:
        return ""
