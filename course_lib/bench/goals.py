"""What the inference server is to reach in `course bench serve`, and how far it got."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any


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

    def goal(value: float | None, sign: str, limit: float) -> dict[str, Any]:
        met = None if value is None else value >= limit if sign == ">=" else value <= limit
        return {"value": value, "goal": f"{sign} {limit:g}", "met": met}

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
