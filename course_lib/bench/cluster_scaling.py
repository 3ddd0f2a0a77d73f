"""How long the autoscaler takes from load to a new Ready pod, in fresh clusters: what is wrong in one of them only shows there."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from course_lib import waits
from course_lib.bench import cluster_served as served
from course_lib.bench.cluster_load import PATIENCE
from course_lib.bench.cluster_traces import Say, Traces
from course_lib.cluster import Deployer, KindCluster, Timeline, serving
from course_lib.cluster.timeline import Moment
from course_lib.steady_load import SteadyLoad

#: Requests a second of that many tokens; about a third of a CPU, where 70 % of 0.2 CPUs are steered for.
RATE, TOKENS = 25.0, 64
#: Seconds after which it counts as no reaction.
TIMEOUT = 120.0
LIMIT = 45.0
_CHAT: Mapping[str, Any] = {
    "model": "tutor",
    "messages": [{"role": "user", "content": "What is an image layer?"}],
    "max_tokens": TOKENS,
    "logit_bias": {"2": -100},  # the end token is never drawn: every answer is as long
}


def figures(traces: Traces, clusters: int, say: Say) -> dict[str, Any]:
    """One reaction in each of so many clusters of one node, and what there was to see where there was none."""
    runs = []
    for number in range(clusters):
        say(f"autoscaler: cluster {number + 1} of {clusters}")
        with traces.lived(0) as life:
            runs.append({"up_s": round(life.up_s, 1), **_one(life.cluster)})
        say(f"autoscaler: a new Ready pod after {runs[-1]['ready_s']} s")
    return together(runs)


def together(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """How many clusters reacted within LIMIT, and all runs."""
    return {
        "clusters": len(runs),
        "within_limit": sum(run["ready_s"] is not None and run["ready_s"] <= LIMIT for run in runs),
        "share_within_limit": round(
            sum(run["ready_s"] is not None and run["ready_s"] <= LIMIT for run in runs) / len(runs), 3
        ),
        "rate": RATE,
        "tokens": TOKENS,
        "runs": runs,
    }


def _one(cluster: KindCluster) -> dict[str, Any]:
    served.image_on_nodes(cluster)
    deployer = served.deployer(cluster)
    deployer.apply(served.OVERLAY)
    deployer.wait(serving.DEPLOYMENT)
    began = time.monotonic()
    found: dict[str, Any] = dict.fromkeys(
        ("known_s", "seen_s", "decided_s", "ready_s", "cpu", "replicas", "lost", "said")
    )
    try:
        waits.until(lambda: _known(deployer), what="the autoscaler to have figures", timeout=TIMEOUT, every=0.2)
    except waits.WaitTimeout:
        return found | {"said": _said(cluster, deployer)}
    found["known_s"] = round(time.monotonic() - began, 1)
    address, key = f"{cluster.address()}/v1/chat/completions", serving.headers(deployer)
    with (
        Timeline(deployer, serving.DEPLOYMENT) as timeline,
        SteadyLoad(address, _CHAT, rate=RATE, headers=key, timeout=PATIENCE, keep_alive=False) as load,
    ):
        try:
            timeline.require_scaled_up(2, timeout=TIMEOUT)
        except waits.WaitTimeout:
            found["said"] = _said(cluster, deployer)
    after = load.started - timeline.started
    seen = {"seen_s": _over, "decided_s": lambda one: one.desired >= 2, "ready_s": lambda one: one.ready >= 2}
    moments = timeline.moments
    return found | {
        **{name: _first(moments, fits, after) for name, fits in seen.items()},
        "cpu": max((one.cpu for one in moments if one.cpu is not None), default=None),
        "replicas": moments[-1].desired,
        "lost": len(load.lost),
    }


def _over(one: Moment) -> bool:
    """The autoscaler has measured more than it steers for."""
    return one.cpu is not None and one.cpu > one.target


def _first(moments: list[Moment], fits: Callable[[Moment], bool], after: float) -> float | None:
    """Seconds from the load's beginning until something was seen first."""
    at = next((one.at for one in moments if fits(one)), None)
    return None if at is None else round(at - after, 1)


def _known(deployer: Deployer) -> None:
    scaler = deployer.autoscaler(serving.DEPLOYMENT)
    if scaler.used.get("cpu") is None:
        raise waits.NotYet("; ".join(scaler.conditions.values()))


def _said(cluster: KindCluster, deployer: Deployer) -> str:
    """What explains an autoscaler that does nothing."""
    scaler = deployer.autoscaler(serving.DEPLOYMENT)
    api = cluster.kubectl(
        "get", "apiservice", "v1beta1.metrics.k8s.io", "--output=jsonpath={.status.conditions}", show=False, check=False
    )
    return "; ".join([scaler.words(), *scaler.conditions.values(), api.output])[:1500]
