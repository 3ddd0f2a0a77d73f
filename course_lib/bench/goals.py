"""What is to be reached, and how far it got: the inference server in `course bench serve`, the stack in `course bench stack`,
the cluster in `course bench cluster`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

HEADS = ["goal", "limit", "reached", ""]


def goal(value: float | None, sign: str, limit: float) -> dict[str, Any]:
    """A limit, `>=` or `<=`, and what was reached; None where nothing was measured."""
    met = None if value is None else value >= limit if sign == ">=" else value <= limit
    return {"value": value, "goal": f"{sign} {limit:g}", "met": met}


def lines(found: Mapping[str, Any]) -> list[list[str]]:
    """Goal, limit, what was reached, and whether that is it."""
    said = {True: "met", False: "not met", None: "not measured"}
    return [
        [name, goal["goal"], "" if goal["value"] is None else f"{goal['value']:g}", said[goal["met"]]]
        for name, goal in found["goals"].items()
    ]


def stack_goals(found: Mapping[str, Any]) -> dict[str, Any]:
    """Each goal of the stack with what was reached; None where that part was not measured."""
    start, kills, scaling, both = (found[part] or {} for part in ("start", "kills", "scaling", "side_by_side"))
    return {
        "requests lost while one of three replicas is killed": goal(kills.get("lost"), "<=", 0),
        "requests lost over 1, 3 and 2 replicas": goal(scaling.get("lost"), "<=", 0),
        "containers that a second `up` replaces": goal(start.get("replaced_by_second_up"), "<=", 0),
        "containers, networks, volumes and ports that two stacks share": goal(both.get("shared"), "<=", 0),
        "stacks of two that answer from their own documents": goal(both.get("answering"), ">=", 2),
    }


def cluster_goals(found: Mapping[str, Any]) -> dict[str, Any]:
    """Each goal of the cluster with what was reached; None where that part was not measured."""
    parts = ("one_node", "three_nodes", "rollouts", "accidents", "autoscaler", "side_by_side", "lab")
    one, three, rollouts, accidents, scaler, both, lab = (found[part] or {} for part in parts)
    return {
        "one node up from a present image, s": goal(one.get("up_s"), "<=", 60),
        "three nodes up, s": goal(three.get("up_s"), "<=", 60),
        "Deployment Ready after apply, s": goal(one.get("ready_s"), "<=", 15),
        "requests during rollouts": goal(rollouts.get("requests"), ">=", 6000),
        "of these lost, refused or cut": goal(rollouts.get("lost"), "<=", 0),
        "requests lost while a node is drained": goal(accidents.get("a node is drained", {}).get("lost"), "<=", 0),
        "fresh clusters with a new Ready pod within 45 s of load, share": goal(
            scaler.get("share_within_limit"), ">=", 0.9
        ),
        "fresh clusters that this was tried in": goal(scaler.get("clusters"), ">=", 10),
        "containers, networks, volumes, ports and files that two clusters share": goal(both.get("shared"), "<=", 0),
        "clusters of two that know their own name": goal(both.get("answering"), ">=", 2),
        "steps of the whole lab that pass": goal(lab.get("steps_passed"), ">=", 7),
        "the whole lab with its images there, s": goal(lab.get("seconds"), "<=", 600),
        "left behind by all of these": goal(len(found["left"]["objects"]), "<=", 0),
    }


def goals(found: Mapping[str, Any]) -> dict[str, Any]:
    """Each goal with what was reached; None where a side of it is missing."""
    ours, bare, peers = found["ours"] or {}, found["bare_engine"], found["peers"]

    def of(entry: Mapping[str, Any], name: str) -> float | None:
        outer, _, inner = name.partition(".")
        value = (entry.get(outer) or {}).get(inner) if inner else entry.get(outer)
        return None if value is None else float(value)

    def best(name: str, pick: Callable[[list[float]], float]) -> float | None:
        values = [value for peer in peers.values() if (value := of(peer, name)) is not None]
        return pick(values) if values else None

    def ratio(name: str, other: float | None) -> float | None:
        mine = of(ours, name)
        return None if mine is None or not other else round(mine / other, 3)

    alone, alone_bare = of(ours, "one_client_p50_ms"), of(bare, "one_client_p50_ms")
    extra = None if alone is None or alone_bare is None else round(alone - alone_bare, 3)
    return {
        "throughput over the bare engine": goal(ratio("tokens_per_s", of(bare, "tokens_per_s")), ">=", 0.9),
        "throughput over the best peer": goal(ratio("tokens_per_s", best("tokens_per_s", max)), ">=", 1),
        "p99 over the best peer": goal(ratio("p99_ms", best("p99_ms", min)), "<=", 1),
        "mixed lengths, throughput over the best peer": goal(
            ratio("mixed_tokens_per_s", best("mixed_tokens_per_s", max)), ">=", 1.5
        ),
        "first token p99 over the best peer": goal(ratio("ttft_p99_ms", best("ttft_p99_ms", min)), "<=", 1),
        "one client, p50 above the bare engine in ms": goal(extra, "<=", 2),
        "classifier, requests/s over the best peer": goal(
            ratio("classifier.requests_per_s", best("classifier.requests_per_s", max)), ">=", 1
        ),
        "classifier, p99 over the best peer": goal(ratio("classifier.p99_ms", best("classifier.p99_ms", min)), "<=", 1),
        "start to ready in s": goal(of(ours, "start_to_ready_s"), "<=", 2),
        "RSS at rest in MB": goal(of(ours, "rss_mb"), "<=", 250),
    }
