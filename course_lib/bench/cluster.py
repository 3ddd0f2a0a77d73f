"""`course bench cluster`: how long the cluster of lab 4.4.5 takes to start, to serve and to scale, and what users lose meanwhile.

Some parts share one cluster; the others are about the beginning of clusters, and start their own. All of them take an hour,
so parts can be measured one by one and put together: `--only` and `--json` for each, then `--from` for each file.
"""

from __future__ import annotations

import datetime
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from course_lib import shell
from course_lib.bench import (
    cluster_accidents,
    cluster_lab,
    cluster_pair,
    cluster_rollout,
    cluster_scaling,
    cluster_start,
    cluster_usage,
    document,
)
from course_lib.bench import cluster_served as served
from course_lib.bench.cluster_traces import Say, Traces
from course_lib.bench.goals import cluster_goals
from course_lib.bench.machine import cpu_name, cpus, ended_by_sigterm
from course_lib.cluster import Deployer, KindCluster, node_image
from course_lib.errors import CourseError
from course_lib.images import bases, course_image
from course_lib.settings import CHECKOUT


@dataclass(frozen=True)
class Plan:
    """How long and how often."""

    rounds: int = 3
    """Starts, rollouts and accidents of a kind."""
    clusters: int = 10
    """Fresh ones for the autoscaler."""
    workers: int = 2
    """Of the cluster that parts share."""
    rate: float = 100.0
    requests: int = 6000
    """During the rollouts, at least."""
    seconds: float = 60.0
    """Of looking at an idle cluster."""
    controls: bool = True
    """Whether rollouts without manners stand beside those with."""

    @classmethod
    def quick(cls) -> Plan:
        """Whether it works; its figures mean little."""
        return cls(rounds=1, clusters=1, workers=0, rate=20, requests=200, seconds=6, controls=False)


_Shared = Callable[[KindCluster, Deployer, Plan, Say], Any]
_Own = Callable[[Traces, Plan, Say], Any]


def _rollouts(cluster: KindCluster, deployer: Deployer, plan: Plan, say: Say) -> dict[str, Any]:
    """The way of k8s/, and the others beside it on the same cluster."""
    ours, *others = [
        cluster_rollout.rollouts(
            cluster, deployer, way, count=plan.rounds, rate=plan.rate, requests=plan.requests, say=say
        )
        for way in list(served.WAYS)[: None if plan.controls else 1]
    ]
    return {**ours, "controls": others}


#: Parts that share a cluster with the image on its nodes.
SHARED: Mapping[str, _Shared] = {
    "rollouts": _rollouts,
    "accidents": lambda cluster, deployer, plan, say: cluster_accidents.figures(
        cluster, deployer, count=plan.rounds, rate=plan.rate, say=say
    ),
}
#: Parts that start their own.
OWN: Mapping[str, _Own] = {
    "one_node": lambda traces, plan, say: cluster_start.figures(traces, 0, plan.rounds, say),
    "three_nodes": lambda traces, plan, say: cluster_start.figures(traces, 2, plan.rounds, say),
    "autoscaler": lambda traces, plan, say: cluster_scaling.figures(traces, plan.clusters, say),
    "idle": lambda traces, plan, say: cluster_usage.figures(traces, plan.workers, plan.seconds, say),
    "side_by_side": lambda traces, plan, say: cluster_pair.figures(traces, say),
    "lab": lambda traces, plan, say: cluster_lab.figures(traces, say),
}
ALL_PARTS = (*OWN, *SHARED)


def figures(
    plan: Plan,
    *,
    only: Sequence[str] | None = None,
    say: Say = lambda line: None,
    keep: Callable[[dict[str, Any]], None] = lambda found: None,
) -> dict[str, Any]:
    """Measures, and leaves nothing running.

    Args:
        only: parts to measure; none means all. What is left out is None in the result.
        say: told what is being done.
        keep: given the figures so far after each part, so that one which fails late costs nobody an hour.

    Raises:
        CourseError: a name is not known, or a cluster failed.
    """
    for name in only or []:
        if name not in ALL_PARTS:
            raise CourseError(f"there is no part {name!r} to measure", do=f"Choose from {', '.join(ALL_PARTS)}.")
    wanted = only or ALL_PARTS
    node = node_image.choose(bases.source()[0])
    course_image.ensure_inference_image()
    load_before = os.getloadavg()[0]
    machine = _machine(node.kind) | {"load_average_before": round(load_before, 2)}
    found: dict[str, Any] = dict.fromkeys(ALL_PARTS)
    traces = Traces()

    def so_far() -> dict[str, Any]:
        found["left"] = {"clusters": traces.clusters, "objects": traces.left}
        return {
            "bench": "cluster",
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "pieces": 1,
            "preliminary": not plan.controls or plan.rounds < 3 or load_before > 0.5,
            "machine": machine,
            "kubernetes": traces.kubernetes,
            "node_image": "built from packages" if node.fallback else "kind's own",
            "revision": _revision(),
            **found,
            "goals": cluster_goals(found),
        }

    with ended_by_sigterm():
        for name, own in OWN.items():
            if name in wanted:
                found[name] = own(traces, plan, say)
                keep(so_far())
        if shared := [name for name in SHARED if name in wanted]:
            say(f"a cluster of {plan.workers + 1} nodes for {', '.join(shared)}")
            with traces.lived(plan.workers) as life:
                deployer = served.deployer(life.cluster)
                served.image_on_nodes(life.cluster)
                for name in shared:
                    found[name] = SHARED[name](life.cluster, deployer, plan, say)
                    keep(so_far())
    return so_far()


def _machine(kind: Path) -> dict[str, Any]:
    return {
        "cpu": cpu_name(),
        "cpus": len(cpus()[0]),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "system": platform.platform(),
        "engine": _said("docker", "version", "--format={{.Server.Version}}"),
        "kind": (_said(str(kind), "version", "--quiet") or "").removeprefix("v"),
    }


def _revision() -> str | None:
    """Of what is measured; a change of this bench is none of it."""
    measured = ("course_lib/cluster", "k8s", "docker/inference-server")
    return _said("git", "-C", str(CHECKOUT), "log", "-1", "--format=%h", "--", *measured)


def read(*files: Path) -> dict[str, Any]:
    """Figures that were written before; several files are put together.

    Raises:
        CourseError: a file holds something else.
    """
    return put_together(
        [document.read(file, "cluster", {*ALL_PARTS, "left", "machine", "pieces", "goals"}) for file in files]
    )


def put_together(pieces: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Figures whose parts were measured one by one: of a part that was measured again the later, but of the autoscaler, whose
    clusters have nothing to do with one another, all."""
    found = dict(pieces[-1])
    for part in ALL_PARTS:
        measured = [piece[part] for piece in pieces if piece[part] is not None]
        found[part] = measured[-1] if measured else None
    if runs := [run for piece in pieces if piece["autoscaler"] for run in piece["autoscaler"]["runs"]]:
        found["autoscaler"] = cluster_scaling.together(runs)
    found["left"] = {
        "clusters": sum(piece["left"]["clusters"] for piece in pieces),
        "objects": [one for piece in pieces for one in piece["left"]["objects"]],
    }
    load = max(piece["machine"]["load_average_before"] for piece in pieces)
    return found | {
        "pieces": sum(piece["pieces"] for piece in pieces),
        "preliminary": any(piece["preliminary"] for piece in pieces),
        # the lab's piece has none
        "kubernetes": next((piece["kubernetes"] for piece in reversed(pieces) if piece["kubernetes"]), ""),
        "machine": {**found["machine"], "load_average_before": load},
        "revision": ", ".join(dict.fromkeys(str(piece["revision"]) for piece in pieces)),
        "goals": cluster_goals(found),
    }


def _said(*argv: str) -> str | None:
    return shell.run(argv, show=False, check=False, timeout=30).output or None
