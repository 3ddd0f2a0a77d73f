"""Shadow: a new version hears every request and nobody hears the new version. What it would have said is compared."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from course_lib.cluster.deployer import Deployer
from course_lib.cluster.strategies import canary, traffic
from course_lib.cluster.strategies import release as releases
from course_lib.cluster.strategies.gate import Gate, Verdict, disagreement, together
from course_lib.cluster.strategies.journal import Journal, Outcome
from course_lib.cluster.strategies.release import Release
from course_lib.cluster.strategies.traffic import CANDIDATE, DOOR, STABLE, Compared, Traffic
from course_lib.cluster.strategies.watch import watch
from course_lib.errors import CourseError
from course_lib.lab.steps import record


@dataclass(frozen=True)
class Rule:
    """What stops a shadow, stated before it is heard."""

    disagreement: float = 0.2
    """Most answers that may differ. A better version has to differ: by about as much as the old one is wrong."""
    pairs: int = 100
    """Fewer say nothing."""
    gate: Gate = field(default_factory=lambda: Gate(slower=3.0))
    """For errors and latency. A shadow costs its machine as much as it will later, so it may be slower now."""


def follow(
    deployer: Deployer, address: str, wanted: Release, *, rule: Rule, journal: Journal, seconds: float = 8
) -> tuple[Outcome, Compared]:
    """Lets a release hear everything for a while, and says whether it may go on to a canary. Users get what they got before.

    Args:
        address: of the door.
    """
    began = time.monotonic()
    journal.note(f"{wanted.words()} as shadow")
    verdict, seen = Verdict(()), Compared(0, 0, ())
    why, heard = "", 0
    try:
        canary.start(deployer, wanted)
        traffic.forget(deployer)
        traffic.direct(deployer, address, Traffic(mirror=True))
        journal.note("mirrored")
        old, new = ([pod.name for pod in releases.ready(deployer, name)] for name in (STABLE, CANDIDATE))
        judged, window = watch(deployer, old, new, gate=rule.gate, rows=(), seconds=seconds)
        heard = window.new.requests if window.new else 0
        traffic.direct(deployer, address, Traffic())
        seen = traffic.compare(deployer)
        told = disagreement(seen.pairs, seen.differ, most=rule.disagreement, at_least=rule.pairs)
        verdict = together(judged, [told])
    except CourseError as failed:
        why = failed.what
        traffic.direct(deployer, address, Traffic())
    traffic.forget(deployer)
    releases.empty(deployer, CANDIDATE)
    journal.note("passed" if verdict.promotes else "stopped")
    if not why:
        record(
            "shadow.passed" if verdict.promotes else "shadow.stopped", "http", DOOR, heard=heard, pairs=seen.pairs,
            differ=seen.differ, gate=verdict.words(), findings=[vars(one) for one in verdict.findings],
        )  # fmt: skip
    ends = time.monotonic() - began
    return Outcome("shadow", wanted, verdict.promotes, (("shadow", verdict),) if not why else (), ends, why), seen
