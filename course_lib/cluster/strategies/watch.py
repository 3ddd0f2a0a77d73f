"""A window: two versions under the same load, looked at before and after, and in between for what can't wait."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from course_lib.cluster.deployer import Deployer
from course_lib.cluster.strategies import figures, marks
from course_lib.cluster.strategies.figures import Figures
from course_lib.cluster.strategies.gate import Gate, Seen, Verdict
from course_lib.cluster.strategies.marks import Marked, Row
from course_lib.errors import CourseError

#: Seconds between two looks at the errors. A look is a question to every new pod.
_EVERY = 2.0
_PATIENCE = 3


def watch(
    deployer: Deployer,
    old: Sequence[str],
    new: Sequence[str],
    *,
    gate: Gate,
    rows: Sequence[Row],
    seconds: float,
    before: Figures | None = None,
    key: Mapping[str, str] | None = None,
) -> tuple[Verdict, Seen]:
    """Looks at old and new pods for a while, and judges.

    Args:
        old: names of pods, as `new`.
        rows: of the exam; without any there is none.
        seconds: of the window. It ends at once when too much fails, and lasts up to three times as long while the new pods
            have had too few requests: a small share takes its time.
        before: figures of the old version where it gets no requests any more.
        key: headers that open the server for the exam; by default the users'.
    """
    until, latest = time.monotonic() + seconds, time.monotonic() + _PATIENCE * seconds
    first_old = None if before else _look(deployer, old)
    first_new = _look(deployer, new)
    while gate.errors(found := _between(first_new, _look(deployer, new))).passed is not False:
        left = until - time.monotonic()
        few = found is not None and found.requests < gate.requests and time.monotonic() < latest
        if left <= 0 and not few:
            break
        time.sleep(min(_EVERY, left) if left > 0 else _EVERY)  # the window itself: users ask meanwhile
    old_now, new_now = before or _between(first_old, _look(deployer, old)), _between(first_new, _look(deployer, new))
    if gate.errors(new_now).passed is False or not rows:  # the way back does not wait for an exam
        seen = Seen(old_now, new_now)
        return gate.judge(seen, exam=False), seen
    seen = Seen(old_now, new_now, _mark(deployer, old, rows, key), _mark(deployer, new, rows, key))
    return gate.judge(seen), seen


def _look(deployer: Deployer, pods: Sequence[str]) -> figures.Look | None:
    """None where they can't be read: a gate does not promote on that, and a rollout does not end in an error by it."""
    try:
        return figures.look(deployer, pods) if pods else None
    except CourseError:
        return None


def _between(before: figures.Look | None, after: figures.Look | None) -> Figures | None:
    return None if before is None or after is None else figures.between(before, after)


def _mark(deployer: Deployer, pods: Sequence[str], rows: Sequence[Row], key: Mapping[str, str] | None) -> Marked | None:
    try:
        return marks.mark(deployer, pods[0], rows, key) if pods and rows else None
    except CourseError:
        return None
