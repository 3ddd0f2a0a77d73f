"""What a cluster takes while nothing runs on it: each node by `docker stats`, and the control plane's programs one by one."""

from __future__ import annotations

import json
import statistics
import time
from collections import defaultdict
from typing import Any

from course_lib import shell
from course_lib.bench.cluster_traces import Say, Traces
from course_lib.bench.stack_usage import megabytes
from course_lib.cluster import KindCluster

#: Seconds after the start in which it still finds itself.
SETTLE = 30.0
#: utime, stime, and resident pages of every process: /proc/PID/stat, whose name stands in brackets.
_STATS = "getconf CLK_TCK; getconf PAGESIZE; cat /proc/[0-9]*/stat 2>/dev/null; true"


def figures(traces: Traces, workers: int, seconds: float, say: Say) -> dict[str, Any]:
    """Megabytes and percent of one CPU, of a new cluster: nodes by `docker stats`, programs over so many seconds by their own account."""
    with traces.lived(workers) as life:
        say(f"at rest: {seconds:g} s")
        time.sleep(min(SETTLE, seconds))
        return _watched(life.cluster, seconds)


def _watched(cluster: KindCluster, seconds: float) -> dict[str, Any]:
    before, began = _processes(cluster.containers[0]), time.monotonic()
    looks = []
    while time.monotonic() - began < seconds:
        looks.append(_nodes(cluster))
    after, took = _processes(cluster.containers[0]), time.monotonic() - began
    return {
        "seconds": round(took),
        "nodes": {
            node.removeprefix(f"{cluster.name}-"): {
                "memory_mb": round(statistics.median(look[node][0] for look in looks)),
                "cpu_percent": round(statistics.mean(look[node][1] for look in looks), 1),
            }
            for node in cluster.containers
        },
        "programs": _programs(before, after, took),
    }


def _nodes(cluster: KindCluster) -> dict[str, tuple[float, float]]:
    """One look; the engine takes the CPU's share over the second or two that it lasts."""
    command = ["docker", "stats", "--no-stream", "--format={{json .}}", *cluster.containers]
    rows = [json.loads(line) for line in shell.run(command, show=False, timeout=60).stdout.splitlines()]
    return {
        one["Name"]: (megabytes(one["MemUsage"].partition("/")[0]), float(one["CPUPerc"].rstrip("%"))) for one in rows
    }


Processes = dict[str, tuple[str, float, float]]


def _processes(node: str) -> Processes:
    """By number: name, seconds of CPU so far, megabytes resident."""
    ticks, page, *lines = shell.run(
        ["docker", "exec", node, "sh", "-c", _STATS], show=False, timeout=30
    ).stdout.splitlines()
    return parse(lines, int(ticks), int(page))


def parse(lines: list[str], ticks: int, page: int) -> Processes:
    """Lines of /proc/PID/stat (proc_pid_stat(5)): fields 14, 15 and 24.

    Args:
        ticks: a second's.
        page: bytes of one.
    """
    found = {}
    for line in lines:
        number, _, rest = line.partition(" (")
        name, _, fields = rest.rpartition(") ")
        each = fields.split()  # from field 3 on
        found[number] = (name, (int(each[11]) + int(each[12])) / ticks, int(each[21]) * page / 1e6)
    return found


def _programs(before: Processes, after: Processes, seconds: float) -> dict[str, dict[str, float]]:
    """Those that used most, by name; the rest together."""
    cpu: dict[str, float] = defaultdict(float)
    memory: dict[str, float] = defaultdict(float)
    for number, (name, used, resident) in after.items():
        cpu[name] += used - (before[number][1] if number in before else 0.0)
        memory[name] += resident
    first = sorted(cpu, key=lambda name: (cpu[name], memory[name]), reverse=True)[:6]
    groups = {name: [name] for name in first} | {"others": [name for name in cpu if name not in first]}
    return {
        group: {
            "memory_mb": round(sum(memory[name] for name in names)),
            "cpu_percent": round(100 * sum(cpu[name] for name in names) / seconds, 1),
        }
        for group, names in groups.items()
    }
