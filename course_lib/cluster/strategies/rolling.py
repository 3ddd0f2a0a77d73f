"""Rolling update: one new pod first, with its share of the users; the others follow when the gate says so."""

from __future__ import annotations

import time
from collections.abc import Sequence

from course_lib import waits
from course_lib.cluster.deployer import Deployer
from course_lib.cluster.pods import Pod
from course_lib.cluster.strategies import release as releases
from course_lib.cluster.strategies.gate import Gate, Verdict
from course_lib.cluster.strategies.journal import Journal, Outcome
from course_lib.cluster.strategies.marks import Row
from course_lib.cluster.strategies.release import Release
from course_lib.cluster.strategies.watch import watch
from course_lib.errors import CourseError
from course_lib.lab.steps import record


def update(
    deployer: Deployer,
    name: str,
    release: Release,
    *,
    gate: Gate,
    rows: Sequence[Row],
    journal: Journal,
    seconds: float = 8,
    timeout: float = 60,
) -> Outcome:
    """Rolls a release out, pauses at its first pod, looks at it under load, and goes on or back.

    Kubernetes itself asks a new pod one thing: whether it is ready. The Deployment's minReadySeconds is the time in which
    somebody may ask more.

    Args:
        seconds: of the window at the gate.
        timeout: seconds that the first new pod has to get ready.
    """
    began, before = time.monotonic(), releases.current(deployer, name)
    old = releases.ready(deployer, name)
    journal.note(f"{release.words()} comes")
    releases.put(deployer, name, release)
    try:
        first = _first(deployer, name, {pod.template for pod in old}, timeout)
    except CourseError as late:
        _back(deployer, name, before, journal, late.what)
        return Outcome("rolling", release, False, (), time.monotonic() - began, late.what)
    releases.pause(deployer, name)
    journal.note("paused")
    verdict, _ = watch(
        deployer, [pod.name for pod in old], [pod.name for pod in first], gate=gate, rows=rows, seconds=seconds
    )
    if verdict.promotes:
        journal.note("on")
        releases.pause(deployer, name, paused=False)
        deployer.wait(name)
        _read_back(deployer, name, release, "rolling.promoted", verdict)
    else:
        _back(deployer, name, before, journal, verdict.words())
        _read_back(deployer, name, before, "rolling.rolled-back", verdict)
    journal.note("done")
    return Outcome("rolling", release, verdict.promotes, (("first pod", verdict),), time.monotonic() - began)


def _first(deployer: Deployer, name: str, old: set[str], timeout: float) -> list[Pod]:
    """The first pods of the new template that are ready."""

    def probe() -> list[Pod]:
        found = [pod for pod in deployer.pods(name) if pod.template not in old and not pod.terminating]
        if not any(pod.ready for pod in found):
            raise waits.NotYet("; ".join(f"{pod.name} {pod.words()}" for pod in found) or "it is not made yet")
        return [pod for pod in found if pod.ready]

    return waits.until(probe, what=f"the first new pod of {name}", timeout=timeout, every=0.2)


def _back(deployer: Deployer, name: str, before: Release, journal: Journal, why: str) -> None:
    """The old release again, in the same change as the end of the pause: in between, the rollout would go on."""
    journal.note("back")
    releases.put(deployer, name, before, resume=True)
    deployer.wait(name)


def _read_back(deployer: Deployer, name: str, wanted: Release, fact: str, verdict: Verdict) -> None:
    """Every pod that gets requests is of the release that should be there now.

    Raises:
        CourseError: one is not.
    """
    found = releases.ready(deployer, name)
    strangers = [pod.name for pod in found if not releases.same_image(pod.image, wanted.image)]
    if strangers or not found:
        raise CourseError(f"{', '.join(strangers) or 'no pod'} of {name} should run {wanted.image}")
    record(
        fact, "kubernetes", name, image=wanted.image, pods=[pod.name for pod in found], gate=verdict.words(),
        findings=[vars(one) for one in verdict.findings],
    )  # fmt: skip
