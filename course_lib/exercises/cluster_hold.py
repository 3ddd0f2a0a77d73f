"""The exercise hold-p95: an autoscaler that keeps answers quick under a load that one replica can't bear."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import pairwise
from math import isfinite
from pathlib import Path

from course_lib import waits
from course_lib.cluster import Deployer, Timeline, manifests, serving
from course_lib.errors import CourseError
from course_lib.exercises import cluster_autoscaler as scaling
from course_lib.exercises import cluster_checks as checks
from course_lib.exercises import cluster_load as loads
from course_lib.exercises import cluster_scenes as scenes
from course_lib.exercises.cluster_checks import require
from course_lib.lab.exercise import STARTERS, NotYet
from course_lib.steady_load import SteadyLoad

NAME = "hold-p95"
SERVER = STARTERS / "4.4.5" / NAME / "server.yaml"
#: The load, in CPU that one replica may use: one has to refuse nearly half of it, three bear it.
TIMES = 1.8
#: How many times what one chat takes at rest 95 of 100 may take under the load.
PATIENCE = 25
#: Seconds that the target has to be held for, and within which.
WINDOW, LONGEST = 10, 120


def require_holds(folder: Path) -> dict[str, object]:
    """Puts a learner's autoscaler on the course's own server, brings the load, and waits for answers to be quick again.

    Raises:
        NotYet: the autoscaler would not or does not scale, scales too late, or takes replicas away under the load.
    """
    found = checks.objects(folder, kinds=(scaling.KIND, "Deployment", "Service"))
    scaler = checks.named(found, scaling.KIND, serving.DEPLOYMENT)
    server = manifests.read(SERVER)
    deployment = checks.named(server, "Deployment", serving.DEPLOYMENT)
    least, _ = scaling.bounds(scaler)
    require(
        least == 1,
        f"the autoscaler keeps {least} replicas while nobody asks",
        expected="one: replicas that wait cost as much as those that work",
        look="minReplicas",
    )
    scaling.require_scales(scaler, deployment)
    cluster = scenes.ready_cluster()
    cluster.wait_metrics()
    with scenes.room(cluster, NAME) as deployer:
        deployer.apply(server)
        checks.applied(deployer, [scaler])
        deployer.wait(serving.DEPLOYMENT)
        address = cluster.address(scenes.EXERCISE_PORT)
        checks.require_answers(deployer, address)
        each, rest = loads.cost(deployer, address)
        calm = loads.quantile(rest, 0.5)
        require_measured(deployer)
        rate = TIMES * checks.limit(checks.server(deployment), "cpu") / each
        with Timeline(deployer, serving.DEPLOYMENT) as timeline, loads.chats(deployer, address, rate=rate) as load:
            held = _wait_held(deployer, timeline, load, most=PATIENCE * calm)
        require_no_flapping([one.desired for one in timeline.moments])
        second = next(one.at for one in timeline.moments if one.ready > 1)
        return {
            "replicas": f"1 -> {max(one.ready for one in timeline.moments)}",
            "second one ready after": f"{second:.0f} s",
            "a chat at rest": f"{calm * 1000:.0f} ms",
            "load": f"{rate:.0f} chats a second",
            "95 of 100 within": f"{held * 1000:.0f} ms (at most {PATIENCE * calm * 1000:.0f})",
        }


def require_measured(deployer: Deployer, *, timeout: float = 300) -> None:
    """Waits until an autoscaler knows what its pods use: what it does from then on is its own doing.

    Raises:
        NotYet: it does not get to know it; with its own words.
    """

    def probe() -> None:
        said = deployer.autoscaler(serving.DEPLOYMENT).conditions
        if not said.get("ScalingActive", "").startswith("True"):
            raise waits.NotYet("\n".join(f"{key}: {words}" for key, words in said.items()) or "it has not looked")

    try:
        waits.until(probe, what="the autoscaler to have figures", timeout=timeout, every=0.5)
    except waits.WaitTimeout as late:
        raise NotYet(
            f"the autoscaler has no figures\n{late.why}", expected="the CPU of its pods", look="`kubectl describe hpa`"
        ) from None


def _wait_held(deployer: Deployer, timeline: Timeline, load: SteadyLoad, *, most: float) -> float:
    """Waits until 95 of 100 answers of the last seconds came in time; returns within how many seconds they did.

    Raises:
        NotYet: they don't; with what the autoscaler says.
    """

    def probe() -> float:
        now = time.monotonic() - load.started
        recent = [one for one in load.sent if one.began + one.seconds > now - WINDOW]
        moments = timeline.moments
        ready = moments[-1].ready if moments else 0
        within = loads.quantile(recent, 0.95)
        refused = loads.unanswered(recent)
        took = (
            f"95 of 100 answers take {within * 1000:.0f} ms"
            if isfinite(within)
            else "fewer than 95 of 100 are answered"
        )
        said = f"after {now:.0f} s with {ready} replicas {took}{f'; {refused}' if refused else ''}"
        if ready < 2 or now < WINDOW or len(recent) < load.rate * WINDOW / 2 or within > most:
            raise waits.NotYet(said)
        return within

    try:
        return waits.until(probe, what="answers in time", timeout=LONGEST, every=0.5)
    except waits.WaitTimeout as late:
        words = deployer.autoscaler(serving.DEPLOYMENT).words()
        raise NotYet(
            f"{late.why}\nthe autoscaler: {words}",
            expected=f"95 of 100 within {most * 1000:.0f} ms, {WINDOW} s long, at most {LONGEST} s after the load began",
            look="how many replicas it wants at this use, and how quickly it may add them",
        ) from None
    except CourseError as error:
        raise NotYet(f"{error.what}\n{error.why}", expected="an autoscaler that can be read", look=error.do) from None


def require_no_flapping(wanted: Sequence[int]) -> None:
    """The number of replicas that was wanted never fell.

    Args:
        wanted: one after the other; 0 where the autoscaler had not decided yet.

    Raises:
        NotYet: it did.
    """
    decided = [one for one in wanted if one]
    fell = [f"from {before} to {after} replicas" for before, after in pairwise(decided) if after < before]
    require(
        not fell,
        f"under a steady load it went {', then '.join(fell)}",
        expected="no replica taken away while the load is on",
        look="behavior.scaleDown",
    )
