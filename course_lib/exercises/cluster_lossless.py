"""The exercise no-request-lost: a Deployment whose pods are replaced under load, and every request accounted for."""

from __future__ import annotations

import time
from pathlib import Path

from course_lib import waits
from course_lib.cluster import Deployer, serving
from course_lib.exercises import cluster_checks as checks
from course_lib.exercises import cluster_ending as ending
from course_lib.exercises import cluster_load as loads
from course_lib.exercises import cluster_scenes as scenes
from course_lib.exercises.cluster_checks import require
from course_lib.lab.exercise import NotYet
from course_lib.steady_load import SteadyLoad

NAME = "no-request-lost"
REPLICAS, RATE = 2, 25


def require_loses_nothing(folder: Path) -> dict[str, object]:
    """Reads a learner's manifests, applies them, and replaces all pods under load; returns the count.

    Raises:
        NotYet: requests are lost, or would be.
    """
    found = checks.objects(folder, kinds=("Deployment", "Service", "ConfigMap"))
    deployment = checks.named(found, "Deployment", serving.DEPLOYMENT)
    checks.named(found, "Service", serving.SERVICE)
    require(
        checks.part(checks.server(deployment), "image") == serving.IMAGE,
        "the container runs another image",
        expected=serving.IMAGE,
        look="image",
    )
    ending.require_some_stay(deployment, replicas=REPLICAS)
    ending.require_asks_for_readiness(deployment)
    ending.require_time_to_end(found, deployment)
    deployment["spec"]["replicas"] = REPLICAS
    cluster = scenes.ready_cluster()
    with scenes.room(cluster, NAME) as deployer:
        checks.applied(deployer, found)
        checks.rolled_out(deployer)
        address = cluster.address(scenes.EXERCISE_PORT)
        checks.require_answers(deployer, address)
        with loads.predictions(deployer, address, rate=RATE) as load:
            load.run_for(2)
            seconds = replace_all(deployer, load)
        require_none_lost(load)
        return {"requests": len(load.sent), "lost": 0, "pods replaced": REPLICAS, "seconds": round(seconds)}


def replace_all(deployer: Deployer, load: SteadyLoad, name: str = serving.DEPLOYMENT) -> float:
    """Gives a Deployment another template under load, and lets the load run on until the last old pod is gone; returns the
    seconds that took.

    Raises:
        NotYet: the new pods don't get ready, or old ones stay.
    """
    before = {one.name for one in deployer.pods(name)}
    began = time.monotonic()
    deployer.restart(name)
    checks.rolled_out(deployer, name)

    def gone() -> None:
        if any(one.status != 200 for one in load.sent):
            return  # the answer is there already
        left = [f"{one.name} {one.words()}" for one in deployer.pods(name) if one.name in before]
        if left:
            raise waits.NotYet("; ".join(left))

    try:
        waits.until(gone, what="the old pods to be gone", timeout=300, every=0.3)
    except waits.WaitTimeout as late:
        raise NotYet(
            late.why, expected="the old pods, gone after their grace period", look="terminationGracePeriodSeconds"
        ) from None
    took = time.monotonic() - began
    load.run_for(1)
    return took


def require_none_lost(load: SteadyLoad) -> None:
    """Each request was answered.

    Raises:
        NotYet: some were not; says how many, what became of them, and when.
    """
    lost = [one for one in load.sent if one.status != 200]
    if not lost:
        return
    first, last = min(one.began for one in lost), max(one.began for one in lost)
    raise NotYet(
        f"{len(lost)} of {len(load.sent)} requests were lost, between {first:.1f} and {last:.1f} s: {loads.unanswered(load.sent)}",
        expected="none: each gets its answer, from an old pod or from a new one",
        look="when a new pod counts as ready, and what an old one does from the moment in which it is told to end",
    )
