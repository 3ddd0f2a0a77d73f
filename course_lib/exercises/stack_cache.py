"""A learner's Redis laid over the stack: hits that Prometheus counts, and answers without it."""

from __future__ import annotations

import statistics
from pathlib import Path

from course_lib.errors import CourseError
from course_lib.exercises import stack_checks as checks
from course_lib.exercises.stack_checks import require
from course_lib.images import stack_variables
from course_lib.lab.exercise import NotYet
from course_lib.stacks import Stack, built_variables


def require_caches(folder: Path) -> dict[str, object]:
    """Lays a learner's compose.cache.yaml over the stack, asks twice, and stops Redis; returns what was measured.

    Raises:
        NotYet: the file lacks something, or the cache does not hold.
    """
    file = folder / "compose.cache.yaml"
    require("cache" in checks.services(file), "there is no service cache", expected="one of that name", look=file.name)
    stack = checks.cache_override(folder)
    merged = checks.merged(stack)
    cache, rag = merged["cache"], merged["rag"]
    image = stack.project.variables["CACHE_IMAGE"]
    require(
        cache.get("image") == image,
        f"the cache's image is {cache.get('image')}",
        expected="${CACHE_IMAGE}",
        look="image",
    )
    checks.require_health_check("cache", cache)
    checks.require_memory_limit("cache", cache, most=64 * 2**20)
    checks.require_no_ports("cache", cache)
    networks = sorted(cache.get("networks") or {})
    require(
        networks == ["back"],
        f"the cache is in {', '.join(networks)}",
        expected="the network of the database alone",
        look="networks",
    )
    require("CACHE_URL" in (rag.get("environment") or {}), "nobody told rag of the cache", expected="CACHE_URL in its environment", look="environment of rag")  # fmt: skip
    checks.require_waits_for("rag", rag, "cache")
    built_variables(stack_variables())  # Redis' image, too, which no service of the course's own files uses
    checks.require_probes_that_can_fail(stack, {"cache": cache})
    services = ("traces", "inference", "proxy", "chroma", "rag", "prometheus", "cache")
    with checks.up(stack, services=services):
        return _hits(stack)


def _hits(stack: Stack) -> dict[str, object]:
    stack.rag.put("skerryvore.md", checks.DOCUMENT)
    first = stack.rag.answer(checks.QUESTION)
    # Asked again and again: rag waits for Redis a quarter of a second only, which a busy machine may miss.
    again = checks.eventually(
        lambda: stack.rag.answer(checks.QUESTION).cached, what="an answer from the cache", timeout=20
    )
    require(again and not first.cached, "the second answer to the same question was made anew", expected="it comes from the cache", look="CACHE_URL, and the log of rag")  # fmt: skip
    hits = 'sum(rag_cache_requests_total{result="hit"})'
    counted = checks.eventually(lambda: stack.prometheus.value(hits) >= 1, what="the hit in Prometheus", timeout=20)
    require(counted, "Prometheus counts no hit", expected=f"{hits} of 1", look="the log of rag")
    keys = stack.execute("cache", "redis-cli", "dbsize").output
    require(keys.split()[-1] != "0", "Redis holds no key", expected="the answer", look="which Redis CACHE_URL names")
    fast = statistics.median(stack.rag.answer(checks.QUESTION).seconds["total"] for _ in range(5))
    stack.stop("cache")
    try:
        without = stack.rag.answer(checks.QUESTION)
    except CourseError as error:
        raise NotYet(f"without the cache: {error.what}\n{error.why}", expected="an answer all the same", look="rag's settings") from None  # fmt: skip
    return {
        "first answer": f"{first.seconds['total'] * 1000:.1f} ms",
        "from the cache": f"{fast * 1000:.1f} ms",
        "hits in Prometheus": f"{stack.prometheus.value(hits):.0f}",
        "with Redis stopped": f"answered in {without.seconds['total'] * 1000:.0f} ms, not from a cache",
    }
