"""What a rollout did and when, to be laid beside the load; and how it came out."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from course_lib.cluster.strategies.gate import Verdict
from course_lib.cluster.strategies.release import Release


@dataclass
class Journal:
    """Events in the order in which they came."""

    events: list[tuple[float, str]] = field(default_factory=list)
    """(`time.monotonic()`, what happened)"""

    def note(self, what: str) -> None:
        """Something happened now."""
        self.events.append((time.monotonic(), what))

    def since(self, started: float) -> list[tuple[float, str]]:
        """The events with seconds since a time of `time.monotonic()`."""
        return [(at - started, what) for at, what in self.events]


@dataclass(frozen=True)
class Outcome:
    """How a rollout came out."""

    strategy: str
    release: Release
    passed: bool
    verdicts: tuple[tuple[str, Verdict], ...]
    """(where it was, what the gate said there)"""
    seconds: float
    why: str = ""
    """What ended it, where it was not a verdict."""

    def words(self) -> str:
        """It in a line."""
        last = self.why or (self.verdicts[-1][1].words() if self.verdicts else "")
        return f"{self.release.words()}: {'passed' if self.passed else 'stopped'} after {self.seconds:.0f} s ({last})"

    def rows(self) -> list[dict[str, object]]:
        """A table of the questions and answers at every gate."""
        rows = [{"gate": where} | row for where, verdict in self.verdicts for row in verdict.rows()]
        return rows or [{"gate": "none was reached", "why": self.why}]
