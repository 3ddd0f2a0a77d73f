"""What users lose when a replica is killed and when a node is drained, and how long until all replicas are there again."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from course_lib import waits
from course_lib.bench import cluster_served as served
from course_lib.bench.cluster_load import Users
from course_lib.cluster import Deployer, KindCluster, crash, pods, serving

#: Seconds of load before the accident, and after it is over.
BEFORE, AFTER = 3.0, 3.0


def figures(
    cluster: KindCluster, deployer: Deployer, *, count: int, rate: float, say: Callable[[str], None]
) -> dict[str, Any]:
    """Each accident some times, under load; and once none, which tells what the machine itself makes of that load."""
    served.put("as in k8s/", cluster, deployer)
    accidents: dict[str, Callable[[], None]] = {"a pod's processes are killed": lambda: _crash(cluster, deployer)}
    if cluster.workers > 1:
        accidents["a node is drained"] = lambda: _drain(cluster, deployer)
    say("accidents: none")
    found = {"nothing happens": [_under_load(cluster, deployer, lambda: time.sleep(AFTER), rate)]}
    for name, accident in accidents.items():
        found[name] = []
        for number in range(count):
            say(f"accidents: {name}, {number + 1} of {count}")
            found[name].append(_under_load(cluster, deployer, accident, rate))
    return {name: _together(runs) for name, runs in found.items()} | {"replicas": served.REPLICAS}


def _under_load(cluster: KindCluster, deployer: Deployer, accident: Callable[[], None], rate: float) -> dict[str, Any]:
    with Users(cluster.address(), serving.headers(deployer), rate) as users:
        users.run_for(BEFORE)
        began = time.monotonic()
        accident()
        seconds = time.monotonic() - began
        users.run_for(AFTER)
    return {**users.fates(), "seconds": round(seconds, 1)}


def _together(runs: list[dict[str, Any]]) -> dict[str, Any]:
    counted = ("requests", "answered", "lost", "refused", "cut", "given_up")
    return {
        **{name: sum(run[name] for run in runs) for name in counted},
        "rate": min(run["rate"] for run in runs),
        "p99_ms": max(run["p99_ms"] for run in runs),
        "seconds": sorted(run["seconds"] for run in runs),
        "errors": sorted({error for run in runs for error in run["errors"]})[:5],
    }


def _crash(cluster: KindCluster, deployer: Deployer) -> None:
    """Kills one pod's processes and waits until it is ready again, in the container that the kubelet starts for it."""
    ready = [one for one in map(pods.of, served.pods_of(deployer)) if one.ready]
    victim = min(ready, key=lambda one: one.restarts)  # who crashes again has to wait for its next start
    crash(cluster, deployer, victim)

    def probe() -> None:
        now = next((one for one in map(pods.of, served.pods_of(deployer)) if one.name == victim.name), None)
        if now is None or now.restarts <= victim.restarts or not now.ready:
            raise waits.NotYet(now.words() if now else f"{victim.name} is gone")

    waits.until(probe, what=f"{victim.name} to be ready again", timeout=120, every=0.05)


def _drain(cluster: KindCluster, deployer: Deployer) -> None:
    """Empties the worker with most of the replicas and waits until all are ready elsewhere."""
    by_node = Counter(one.node for one in map(pods.of, served.pods_of(deployer)) if one.node != cluster.containers[0])
    node = by_node.most_common(1)[0][0]
    leave = frozenset(one.name for one in map(pods.of, served.pods_of(deployer)) if one.node == node)
    with cluster.drained(node):
        served.settled(deployer, besides=leave)
