"""Blue/green: the new version stands ready beside the old one, and the Service turns to it as a whole, and back."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from course_lib.cluster import serving
from course_lib.cluster.deployer import Deployer
from course_lib.cluster.pods import Pod
from course_lib.cluster.port_forward import forward
from course_lib.cluster.strategies import release as releases
from course_lib.cluster.strategies.figures import Figures
from course_lib.cluster.strategies.gate import Gate, Verdict
from course_lib.cluster.strategies.journal import Journal, Outcome
from course_lib.cluster.strategies.marks import MODEL, Row
from course_lib.cluster.strategies.release import SERVER_LABELS, Release
from course_lib.cluster.strategies.watch import watch
from course_lib.errors import CourseError
from course_lib.lab.steps import record
from course_lib.steady_load import SteadyLoad

_OTHER = {"blue": "green", "green": "blue"}
SERVICE = serving.SERVICE


def live(deployer: Deployer) -> str:
    """The colour that users get."""
    return str(deployer.api.get("v1", "Service", SERVICE, deployer.namespace)["spec"]["selector"]["track"])


def deployment(colour: str) -> str:
    """The Deployment of a colour."""
    return f"{serving.DEPLOYMENT}-{colour}"


def deploy(
    deployer: Deployer,
    release: Release,
    *,
    gate: Gate,
    rows: Sequence[Row],
    journal: Journal,
    seconds: float = 8,
    key: Mapping[str, str] | None = None,
) -> Outcome:
    """Puts a release on the colour that waits, asks it by itself, turns the Service to it, looks again, and turns back if need be.

    Args:
        seconds: of each window: before the switch with a few requests of our own, after it with everybody's.
        key: headers that open the server for what we ask ourselves; by default the users'.
    """
    began, here = time.monotonic(), live(deployer)
    there = _OTHER[here]
    old = releases.ready(deployer, deployment(here))
    journal.note(f"{release.words()} on {there}")
    releases.put(deployer, deployment(there), release, replicas=len(old))
    verdicts: list[tuple[str, Verdict]] = []

    def ended(passed: bool, why: str = "") -> Outcome:
        releases.empty(deployer, deployment(here if passed else there))
        return Outcome("blue/green", release, passed, tuple(verdicts), time.monotonic() - began, why)

    try:
        deployer.wait(deployment(there), timeout=90)
    except CourseError as late:
        return ended(False, late.what)
    new = releases.ready(deployer, deployment(there))

    before, first = _rehearse(deployer, old, new, gate, rows, seconds, key)
    verdicts.append(("before the switch", first))
    if not first.promotes:
        journal.note("not switched")
        _read_back(deployer, "blue-green.refused", old, here, first)
        return ended(False)

    journal.note(f"switched to {there}")
    try:
        _turn(deployer, there, new)
    except CourseError as failed:
        _turn(deployer, here, old)
        journal.note(f"switched back to {here}")
        return ended(False, failed.what)
    second, _ = watch(
        deployer, [pod.name for pod in old], [pod.name for pod in new], gate=gate, rows=rows, seconds=seconds,
        before=before, key=key,
    )  # fmt: skip
    verdicts.append(("after the switch", second))
    if not second.promotes:
        _turn(deployer, here, old)
        journal.note(f"switched back to {here}")
        _read_back(deployer, "blue-green.switched-back", old, here, second)
        return ended(False)
    _read_back(deployer, "blue-green.switched", new, there, second)
    return ended(True)


def _rehearse(
    deployer: Deployer,
    old: Sequence[Pod],
    new: Sequence[Pod],
    gate: Gate,
    rows: Sequence[Row],
    seconds: float,
    key: Mapping[str, str] | None,
) -> tuple[Figures | None, Verdict]:
    """A few requests to the new pods themselves, while users ask the old ones: nobody rests on these answers."""
    body = {"inputs": list(rows[0][0]), "model": MODEL}
    names = [pod.name for pod in new]
    with forward(deployer.api, deployer.namespace, names[0], serving.PORT) as address:
        load = SteadyLoad(
            f"{address}/predict",
            body,
            rate=1.5 * gate.requests / seconds,
            headers=key or serving.headers(deployer),
            timeout=10,
        )
        with load:
            verdict, seen = watch(
                deployer, [pod.name for pod in old], names, gate=gate, rows=rows, seconds=seconds, key=key
            )
    return seen.old, verdict


def _turn(deployer: Deployer, colour: str, pods: list[Pod]) -> None:
    releases.select(deployer, SERVICE, SERVER_LABELS | {"track": colour})
    releases.require_leads_to(deployer, SERVICE, pods)


def _read_back(deployer: Deployer, fact: str, pods: list[Pod], colour: str, verdict: Verdict) -> None:
    """The Service leads to the colour that it should lead to now.

    Raises:
        CourseError: it does not.
    """
    if live(deployer) != colour:
        raise CourseError(f"Service {SERVICE} leads to {live(deployer)}, and should lead to {colour}")
    addresses = releases.require_leads_to(deployer, SERVICE, pods)
    record(
        fact, "kubernetes", SERVICE, track=colour, addresses=addresses, gate=verdict.words(),
        findings=[vars(one) for one in verdict.findings],
    )  # fmt: skip
