"""Waiting that explains itself: a wait that runs out says what was last seen and what to look at."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from course_lib.errors import CourseError

T = TypeVar("T")


class NotYet(Exception):
    """Raised by a probe: not there yet, and this is what was seen."""


class WaitTimeout(CourseError):
    """What was waited for did not come."""


def until(
    probe: Callable[[], T],
    *,
    what: str,
    timeout: float,
    every: float = 0.1,
    diagnose: Callable[[], str] | None = None,
    do: str = "",
) -> T:
    """Calls `probe` until it returns, and returns what it returned.

    A probe raises `NotYet` while it has to be called again, as does an error that is `passing`; any other exception ends the wait
    at once (a container that has exited never gets healthy, so its probe says so instead of letting the clock run).

    Args:
        what: what is waited for, as in "the container to be healthy".
        timeout: seconds.
        every: seconds between two calls; grows slowly to ten times this.
        diagnose: called when time is up; what it returns (state, last log lines) goes into the error.
        do: what a person can do.

    Raises:
        WaitTimeout: time is up.
    """
    end = time.monotonic() + timeout
    pause = every
    while True:
        try:
            return probe()
        except (NotYet, CourseError) as seen:
            if isinstance(seen, CourseError) and not seen.passing:
                raise
            if time.monotonic() >= end:
                why = "\n".join(part for part in (f"Last seen: {seen}", diagnose() if diagnose else "") if part)
                raise WaitTimeout(f"waited {timeout:.0f} s for {what}", why=why, do=do) from None
        time.sleep(min(pause, max(0.0, end - time.monotonic())))
        pause = min(pause * 1.2, every * 10)


def all_of(*probes: Callable[[], object]) -> Callable[[], list[object]]:
    """One probe out of several: there when all are, and it names the first that is not."""
    return lambda: [probe() for probe in probes]
