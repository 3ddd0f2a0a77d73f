"""The manifests that a learner would sign: read, applied, asked, killed, scaled and replaced, all under load."""

from __future__ import annotations

import time
from pathlib import Path

from course_lib import waits
from course_lib.cluster import Cluster, Deployer, Timeline, crash, serving
from course_lib.errors import CourseError
from course_lib.exercises import cluster_checks as checks
from course_lib.exercises import cluster_hold as hold
from course_lib.exercises import cluster_load as loads
from course_lib.exercises import cluster_lossless as lossless
from course_lib.exercises import cluster_own_reading as reading
from course_lib.exercises import cluster_scenes as scenes
from course_lib.exercises.cluster_own_reading import Own
from course_lib.lab.exercise import NotYet

NAME = "own-manifests"
#: Predictions a second while pods are killed and replaced.
RATE = 20
#: The load that the autoscaler has to follow: so many times what it wants of its replicas, if they can bear that.
TIMES, BEARABLE = 2.0, 0.95


def require_signed_and_sound(folder: Path) -> dict[str, object]:
    """Reads and applies what a learner wrote, and sees it answer, come back, scale and be replaced; returns what was measured.

    Raises:
        NotYet: something is missing in the manifests, or they don't hold.
    """
    own = reading.read(folder)
    cluster = scenes.ready_cluster()
    cluster.wait_metrics()
    with scenes.room(cluster, NAME) as deployer:
        checks.applied(deployer, own.objects, dry_run=True)  # all of it is taken, or nothing starts
        began = time.monotonic()
        checks.applied(deployer, own.objects)
        checks.rolled_out(deployer)
        ready = time.monotonic() - began
        address = cluster.address(scenes.EXERCISE_PORT)
        checks.require_answers(deployer, address)
        with loads.predictions(deployer, address, rate=RATE) as calm:
            calm.run_for(4)
        # In this order: a start costs so much CPU that the autoscaler would follow that.
        second, most = _require_follows(deployer, address, own)
        back = _require_comes_back(cluster, deployer, address)
        with loads.predictions(deployer, address, rate=RATE) as load:
            load.run_for(1)
            lossless.replace_all(deployer, load)
        lossless.require_none_lost(load)
    return {
        "ready_after_seconds": round(ready, 1),
        "back_after_a_crash_seconds": round(back, 1),
        "replicas_at_rest": own.least,
        "replicas_under_load": most,
        "next_pod_ready_after_seconds": round(second, 1),
        "answer_p50_milliseconds": round(loads.quantile(calm.sent, 0.5) * 1000, 1),
        "answer_p95_milliseconds": round(loads.quantile(calm.sent, 0.95) * 1000, 1),
        "requests_while_all_pods_were_replaced": len(load.sent),
        "requests_lost": 0,
    }


def _require_comes_back(cluster: Cluster, deployer: Deployer, address: str) -> float:
    """Kills a pod's processes under load; returns after how many seconds the pod was ready again.

    Raises:
        NotYet: it is not, or gives no answers.
    """
    victim = next(one for one in deployer.pods(serving.DEPLOYMENT) if one.ready)

    def back() -> None:
        now = next((one for one in deployer.pods(serving.DEPLOYMENT) if one.name == victim.name), None)
        if now is None or now.restarts <= victim.restarts or not now.ready:
            raise waits.NotYet(now.words() if now else "it is gone")

    with loads.predictions(deployer, address, rate=RATE) as load:
        load.run_for(1)
        began = time.monotonic()
        crash(cluster, deployer, victim)
        try:
            waits.until(back, what=f"{victim.name} to be ready again", timeout=90, every=0.3)
        except waits.WaitTimeout as late:
            raise NotYet(f"{victim.name} was killed, and did not come back\n{late.why}", expected="it starts again by itself", look="the probes: how long may a start take?") from None  # fmt: skip
        took = time.monotonic() - began
    checks.require_answers(deployer, address)
    return took


def _require_follows(deployer: Deployer, address: str, own: Own) -> tuple[float, int]:
    """Brings more load than the autoscaler wants of its replicas; returns after how many seconds one more was ready, and how
    many there were at most.

    Raises:
        NotYet: none came.
    """
    each, _ = loads.cost(deployer, address)
    hold.require_measured(deployer)
    rate = own.least * min(TIMES * own.target, BEARABLE * own.limit) / each
    with Timeline(deployer, serving.DEPLOYMENT) as timeline, loads.chats(deployer, address, rate=rate):
        try:
            second = timeline.require_scaled_up(own.least + 1, timeout=150)
        except CourseError as error:
            words = deployer.autoscaler(serving.DEPLOYMENT).words()
            raise NotYet(f"{error.what}\n{error.why}\nthe autoscaler: {words}", expected="another replica under load", look=error.do) from None  # fmt: skip
    return second, max(one.ready for one in timeline.moments)
