"""How long a cluster takes: until it is up, until an image is on its nodes, until a Deployment is ready, until it is gone."""

from __future__ import annotations

import time
from typing import Any

from course_lib.bench import cluster_served as served
from course_lib.bench.cluster_traces import Say, Traces
from course_lib.bench.samples import Samples
from course_lib.cluster import serving


def figures(traces: Traces, workers: int, rounds: int, say: Say) -> dict[str, Any]:
    """Makes so many clusters, one after the other. Seconds, each the median; the node image is present."""
    times, phases, steps = Samples(), Samples(), Samples()
    for number in range(rounds):
        say(f"start, {workers + 1} nodes: round {number + 1} of {rounds}")
        with traces.lived(workers) as life:
            times.add("up_s", life.up_s)
            for name, seconds in life.cluster.phases.items():
                phases.add(name, seconds)
            for name, seconds in life.cluster.kind_steps().items():
                steps.add(name, seconds)
            began = time.monotonic()
            served.image_on_nodes(life.cluster)
            times.add("load_s", time.monotonic() - began)
            deployer = served.deployer(life.cluster)
            began = time.monotonic()
            deployer.apply(served.OVERLAY)
            deployer.wait(serving.DEPLOYMENT)
            times.add("ready_s", time.monotonic() - began)
        times.add("down_s", life.down_s)
    return {
        "nodes": workers + 1,
        "rounds": rounds,
        **times.medians(1),
        "phases": phases.medians(1),
        "kind_steps": steps.medians(1),
        "samples": times.as_json(2),
    }
