"""Canary: a small part of the requests goes to the new version; more when the gate says so, none when it says no."""

from __future__ import annotations

import time
from collections.abc import Sequence

import httpx

from course_lib import waits
from course_lib.cluster import serving
from course_lib.cluster.deployer import Deployer
from course_lib.cluster.strategies import chance, figures, traffic
from course_lib.cluster.strategies import release as releases
from course_lib.cluster.strategies.gate import Gate, Seen, Verdict
from course_lib.cluster.strategies.journal import Journal, Outcome
from course_lib.cluster.strategies.marks import MODEL, Row
from course_lib.cluster.strategies.release import SERVER_LABELS, Release
from course_lib.cluster.strategies.traffic import CANDIDATE, DOOR, STABLE, Traffic
from course_lib.cluster.strategies.watch import watch
from course_lib.errors import CourseError
from course_lib.lab.steps import record


def release(
    deployer: Deployer,
    address: str,
    wanted: Release,
    *,
    gate: Gate,
    rows: Sequence[Row],
    journal: Journal,
    steps: Sequence[float] = (10, 50),
    seconds: float = 8,
) -> Outcome:
    """Gives a release a share of the requests, larger at each step; after the last one everybody gets it.

    Args:
        address: of the door.
        steps: percent of the requests.
        seconds: of the window at each step.

    Raises:
        CourseError: the door shared requests out otherwise than it was told; nobody gets the candidate any more then.
    """
    began = time.monotonic()
    verdicts: list[tuple[str, Verdict]] = []
    windows: list[tuple[float, Seen]] = []

    def ended(passed: bool, why: str = "") -> Outcome:
        traffic.direct(deployer, address, Traffic())
        releases.empty(deployer, CANDIDATE)
        journal.note("done" if passed else "back")
        for percent, seen in windows:
            _require_weight(percent, seen)
        return Outcome("canary", wanted, passed, tuple(verdicts), time.monotonic() - began, why)

    journal.note(f"{wanted.words()} as candidate")
    try:
        start(deployer, wanted)
    except CourseError as late:
        return ended(False, late.what)
    for percent in steps:
        traffic.direct(deployer, address, Traffic(candidate=percent))
        journal.note(f"{percent:g} %")
        old, new = (
            [pod.name for pod in releases.ready(deployer, name)] for name in (STABLE, CANDIDATE)
        )  # fmt: skip
        verdict, seen = watch(deployer, old, new, gate=gate, rows=rows, seconds=seconds)
        verdicts.append((f"{percent:g} %", verdict))
        windows.append((percent, seen))
        if not verdict.promotes:
            done = ended(False)
            _read_back(deployer, address, "canary.rolled-back", verdict)
            return done
    # Everybody trusts it now: the stable Deployment gets it, while the candidate goes on serving its share.
    trusted = releases.current(deployer, STABLE)
    releases.put(deployer, STABLE, wanted)
    try:
        deployer.wait(STABLE)
    except CourseError as late:
        releases.put(deployer, STABLE, trusted)
        return ended(False, late.what)
    done = ended(True)
    _read_back(deployer, address, "canary.promoted", verdicts[-1][1], image=wanted.image)
    return done


def start(deployer: Deployer, wanted: Release, *, replicas: int = 1) -> None:
    """Starts a candidate, to which nobody leads yet.

    Raises:
        CourseError: it does not get ready.
    """
    releases.put(deployer, CANDIDATE, wanted, replicas=replicas)
    deployer.wait(CANDIDATE, timeout=90)


def by_replicas(deployer: Deployer, address: str, rows: Sequence[Row], *, requests: int = 120) -> dict[str, object]:
    """The share that a version gets without a door, by its pods alone: the Service leads to all of them, and draws one for each
    connection. Whoever wants 10 % needs nine old pods for one new.

    Returns:
        a row of a table: pods, the share that they make, and the share that was counted.

    Raises:
        CourseError: the counted share is none that chance would make of these pods, or an answer was missing.
    """
    both = {name: releases.ready(deployer, name) for name in (STABLE, CANDIDATE)}
    everybody = [pod for pods in both.values() for pod in pods]
    releases.select(deployer, DOOR, SERVER_LABELS)
    try:
        releases.require_leads_to(deployer, DOOR, everybody)
        before = figures.look(deployer, [pod.name for pod in everybody])
        key = serving.headers(deployer)
        for number in range(requests):
            serving.predict(address, rows[number % len(rows)][0], key)
        after = figures.look(deployer, [pod.name for pod in everybody])
    finally:
        releases.select(deployer, DOOR, {"app.kubernetes.io/name": DOOR})
        releases.require_leads_to(deployer, DOOR, releases.ready(deployer, DOOR))
        _answers(address)
    new = [pod.name for pod in both[CANDIDATE]]
    counted = figures.between({pod: before[pod] for pod in new}, {pod: after[pod] for pod in new}).requests
    share = len(new) / len(everybody)
    if not chance.plausible(counted, requests, share):
        raise CourseError(
            f"{counted} of {requests} requests went to {len(new)} of {len(everybody)} pods",
            why="Chance makes no such share.",
        )
    record("traffic.by-replicas", "http", DOOR, pods=len(everybody), new=len(new), requests=requests, counted=counted)
    return {"shared out by": "replicas", "asked for": f"{share:.0%} ({len(new)} of {len(everybody)} pods)", "counted": f"{counted / requests:.0%}"}  # fmt: skip


def _require_weight(percent: float, seen: Seen) -> None:
    """The candidate has counted the share that it was given.

    Raises:
        CourseError: it got another, and more so than chance would have it.
    """
    if seen.old is None or seen.new is None:
        return  # the gate has said no
    total = seen.old.requests + seen.new.requests
    # The counters are read one pod after the other, so the ends of the window are not sharp.
    if total < 50 or chance.plausible(seen.new.requests, total, percent / 100, slack=0.05):
        if seen.new.requests:
            record("traffic.by-weight", "http", DOOR, percent=percent, requests=total, counted=seen.new.requests)
        return
    raise CourseError(f"{seen.new.requests} of {total} requests went to the candidate, and {percent:g} % should")


def _answers(address: str) -> None:
    """Waits until connections lead to the door again."""

    def probe() -> None:
        try:
            status = httpx.get(f"{address}/traffic", timeout=5, trust_env=False).status_code
        except httpx.HTTPError as error:
            raise waits.NotYet(str(error) or repr(error)) from None
        if status != 200:
            raise waits.NotYet(f"answered {status}")

    waits.until(probe, what="the door to be back", timeout=30, every=0.1)


def _read_back(deployer: Deployer, address: str, fact: str, verdict: Verdict, *, image: str = "") -> None:
    """Nobody gets the candidate any more, and whoever serves is of the release that should.

    Raises:
        CourseError: the door says otherwise, or a pod is of another image.
    """
    said = httpx.get(f"{address}/traffic", timeout=5, trust_env=False).text.strip()
    found = releases.ready(deployer, STABLE)
    strangers = [pod.name for pod in found if image and not releases.same_image(pod.image, image)]
    if said != Traffic().mark or strangers or not found:
        raise CourseError("the canary has not ended as it should", why=f"door: {said}; of another image: {strangers}")
    record(
        fact, "kubernetes", STABLE, images=sorted({pod.image for pod in found}), gate=verdict.words(), model=MODEL,
        findings=[vars(one) for one in verdict.findings],
    )  # fmt: skip
