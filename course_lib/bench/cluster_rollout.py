"""What users lose while a Deployment is rolled out under load: with the manners that k8s/ gives it, and without."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from course_lib.bench import cluster_served as served
from course_lib.bench.cluster_answers import Followed
from course_lib.bench.cluster_load import Users
from course_lib.cluster import Deployer, KindCluster, serving

#: Seconds of load before a rollout begins, and after it has ended.
BEFORE, AFTER = 2.0, 1.0
_COUNTED = (
    "requests", "answered", "lost", "refused", "cut", "given_up", "answered_by_logs", "terminating_pods", "answered_in_pre_stop",
    "answered_after_sigterm",
)  # fmt: skip


def rollouts(
    cluster: KindCluster,
    deployer: Deployer,
    way: str,
    *,
    count: int,
    rate: float,
    requests: int,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """So many rollouts one after the other, each under load until its old pods are gone.

    Args:
        way: one of cluster_served.WAYS.
        requests: in all rollouts together, at least.
    """
    say(f"rollouts, {way}: put there")
    served.put(way, cluster, deployer)
    runs = []
    for number in range(count):
        say(f"rollouts, {way}: {number + 1} of {count}")
        runs.append(_one(cluster, deployer, rate, requests / count))
    return {
        "way": way,
        "rollouts": count,
        **{name: sum(run[name] for run in runs) for name in _COUNTED},
        "rate": round(min(run["rate"] for run in runs), 1),
        "asked_rate": rate,
        "p99_ms": max(run["p99_ms"] for run in runs),
        "late_p99_ms": max(run["late_p99_ms"] for run in runs),
        "seconds": round(max(run["seconds"] for run in runs), 1),
        "errors": sorted({error for run in runs for error in run["errors"]})[:5],
        "runs": runs,
    }


def _one(cluster: KindCluster, deployer: Deployer, rate: float, requests: float) -> dict[str, Any]:
    old = frozenset(one["metadata"]["name"] for one in served.pods_of(deployer))
    with (
        Followed(cluster, deployer, old) as followed,
        Users(cluster.address(), serving.headers(deployer), rate) as users,
    ):
        entered = time.monotonic()
        users.run_for(BEFORE)
        began = time.monotonic()
        deployer.restart(serving.DEPLOYMENT)
        served.settled(deployer, seen=followed.look, besides=old)
        seconds = time.monotonic() - began
        users.run_for(max(AFTER, requests / rate - (time.monotonic() - entered) + 0.5))
    now = [one["metadata"]["name"] for one in served.pods_of(deployer)]
    return {**users.fates(), **followed.counted(now), "seconds": round(seconds, 1)}
