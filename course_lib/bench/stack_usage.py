"""Memory and CPU of each service, at rest and while questions are answered, as `docker stats` has them."""

from __future__ import annotations

import json
import re
import statistics
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from course_lib import shell
from course_lib.bench import stack_rag
from course_lib.stacks import Stack

_UNITS = {"B": 1.0, "kB": 1e3, "KB": 1e3, "MB": 1e6, "GB": 1e9, "KiB": 2.0**10, "MiB": 2.0**20, "GiB": 2.0**30}


def figures(stack: Stack, samples: int, requests: int) -> dict[str, Any]:
    """Megabytes and percent of one CPU by service: medians of some samples, at rest and with 8 clients who ask the RAG service.

    Args:
        samples: looks at the stack at rest.
        requests: questions asked while it is looked at under load.
    """
    time.sleep(3)  # what was done before ends
    idle = [_look(stack) for _ in range(samples)]
    busy = []
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(stack_rag.closed_loop, stack, stack_rag.questions(), 8, requests)
        while not asking.done():
            busy.append(_look(stack))
        asking.result()
    busy = busy[:-1] or busy  # the last look saw the load end
    services = sorted(idle[0])
    return {
        service: {
            f"{name}_{when}": round(statistics.median(look[service][name] for look in looks), 1)
            for when, looks in (("idle", idle), ("busy", busy))
            for name in ("memory_mb", "cpu_percent")
        }
        for service in services
    }


def _look(stack: Stack) -> dict[str, dict[str, float]]:
    """One look at all containers; it takes the engine about two seconds, over which it takes the CPU's share."""
    services = {one.container: one.service for one in stack.states()}
    said = shell.run(["docker", "stats", "--no-stream", "--format={{json .}}", *services], show=False, timeout=60)
    found: dict[str, dict[str, float]] = defaultdict(lambda: {"memory_mb": 0.0, "cpu_percent": 0.0})
    for line in said.stdout.splitlines():
        one = json.loads(line)
        mine = found[services[one["Name"]]]
        mine["memory_mb"] += megabytes(one["MemUsage"].partition("/")[0])
        mine["cpu_percent"] += float(one["CPUPerc"].rstrip("%"))
    return dict(found)


def megabytes(text: str) -> float:
    """Megabytes (10^6 bytes) of a size as Docker writes it, such as `60.67MiB`.

    Raises:
        ValueError: it is no size.
    """
    found = re.fullmatch(r"\s*([\d.]+)\s*([kKMG]?i?B)\s*", text)
    if not found:
        raise ValueError(f"{text!r} is no size")
    return float(found[1]) * _UNITS[found[2]] / 1e6
