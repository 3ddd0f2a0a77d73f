"""The gate: what a new version has to show before it gets more. Judged from figures and nothing else, so that recorded ones do, too.

It says no to what is worse than it may be, and does not say yes to what it knows too little of.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from course_lib.cluster.strategies.figures import Figures
from course_lib.cluster.strategies.marks import Marked


class Decision(StrEnum):
    """What follows from a verdict."""

    PROMOTE = "promote"
    WAIT = "wait"
    """Too little is known."""
    ROLL_BACK = "roll back"


@dataclass(frozen=True)
class Finding:
    """One question, what was measured, and whether that will do; None where it can't be said."""

    what: str
    old: str
    new: str
    limit: str
    passed: bool | None


@dataclass(frozen=True)
class Verdict:
    """All questions of a gate."""

    findings: tuple[Finding, ...]

    @property
    def decision(self) -> Decision:
        """One no is a no; without an answer to every question there is no yes, and without questions neither."""
        if any(one.passed is False for one in self.findings):
            return Decision.ROLL_BACK
        if not self.findings or any(one.passed is None for one in self.findings):
            return Decision.WAIT
        return Decision.PROMOTE

    @property
    def promotes(self) -> bool:
        """Whether the new version may have more."""
        return self.decision is Decision.PROMOTE

    def words(self) -> str:
        """Why not, in a line; or that all is well."""
        against = [f"{one.what}: {one.new} (limit: {one.limit})" for one in self.findings if one.passed is not True]
        return f"{self.decision}: {'; '.join(against)}" if against else str(self.decision)

    def rows(self) -> list[dict[str, object]]:
        """A table of it."""
        signs = {True: "✓", False: "✗", None: "too little to say"}
        return [
            {"question": one.what, "old": one.old, "new": one.new, "limit": one.limit, "": signs[one.passed]}
            for one in self.findings
        ]


@dataclass(frozen=True)
class Seen:
    """What was read of the old and the new version in one window. None is what could not be read."""

    old: Figures | None = None
    new: Figures | None = None
    old_marks: Marked | None = None
    new_marks: Marked | None = None


@dataclass(frozen=True)
class Gate:
    """Limits. They are set before anybody has seen a figure: afterwards each one looks reasonable."""

    requests: int = 30
    """Fewer say nothing, neither good nor bad."""
    error_rate: float = 0.02
    """Most that may fail."""
    spare: int = 2
    """So many failures may be bad luck, however few the requests."""
    slower: float = 2.0
    """The new version's p95 in multiples of the old one's."""
    fast_enough: float = 0.1
    """Seconds: no p95 below this counts as slow. Nobody feels it, and on a busy machine it says more of the machine."""
    worse: float = 0.03
    """How much smaller the share of right answers may be."""

    def judge(self, seen: Seen, *, exam: bool = True) -> Verdict:
        """The verdict on a window.

        Args:
            exam: whether right answers are asked for. A strategy that knows no labels goes without.
        """
        findings = [self.errors(seen.new, seen.old), self.latency(seen.new, seen.old)]
        return Verdict((*findings, self.answers(seen.new_marks, seen.old_marks)) if exam else tuple(findings))

    def errors(self, new: Figures | None, old: Figures | None = None) -> Finding:
        """Does it fail more often than it may? A no does not wait for the end of a window."""
        limit = f"at most {self.error_rate:.0%}"
        passed: bool | None = None
        if new is not None and new.failed > max(self.spare, self.error_rate * new.requests):
            passed = False
        elif new is not None and new.requests >= self.requests:
            passed = True
        return Finding("errors", _errors(old), _errors(new), limit, passed)

    def latency(self, new: Figures | None, old: Figures | None) -> Finding:
        """Is it slower than it may be, beside the old version under the same load?"""
        if old is None or new is None or min(old.requests, new.requests) < self.requests:
            return Finding("p95", _p95(old), _p95(new), f"{self.requests} requests each to compare", None)
        limit = max(self.fast_enough, self.slower * old.quantile(0.95))
        return Finding("p95", _p95(old), _p95(new), f"at most {limit * 1000:.0f} ms", new.quantile(0.95) <= limit)

    def answers(self, new: Marked | None, old: Marked | None) -> Finding:
        """Is it right as often? Errors and latency don't tell: a wrong answer comes as fast as a right one, with status 200."""
        said, before = ("nothing read" if one is None else one.words() for one in (new, old))
        if old is None or new is None or not (old.total and new.total):
            return Finding("right answers", before, said, "an exam of both", None)
        limit = old.share - self.worse
        return Finding("right answers", before, said, f"at least {limit:.0%}", new.share >= limit)


def disagreement(pairs: int, differ: int, *, most: float, at_least: int) -> Finding:
    """Does a shadow answer otherwise than the version that users hear, more often than it may?

    Args:
        pairs: requests that both answered.
        most: the share that may differ, stated before.
        at_least: fewer pairs say nothing.
    """
    said = f"{differ} of {pairs} differ" if pairs else "nothing read"
    passed = None if pairs < at_least else differ <= most * pairs
    return Finding("disagreement", "", said, f"at most {most:.0%} of {at_least} or more", passed)


def together(*several: Verdict | Sequence[Finding]) -> Verdict:
    """One verdict of several questions."""
    return Verdict(tuple(one for each in several for one in (each.findings if isinstance(each, Verdict) else each)))


def _errors(found: Figures | None) -> str:
    return "nothing read" if found is None else f"{found.failed} of {found.requests}"


def _p95(found: Figures | None) -> str:
    seconds = math.nan if found is None else found.quantile(0.95)
    return "nothing read" if math.isnan(seconds) else f"{seconds * 1000:.0f} ms"
