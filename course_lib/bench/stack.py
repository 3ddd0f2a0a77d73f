"""`course bench stack`: how long the stack of lab 4.4.2 takes to start, to answer and to find, and what is lost when parts of it die.

One stack is started and measured part by part; a second one stands beside it only while that is what is measured.
"""

from __future__ import annotations

import datetime
import os
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from course_lib import images, shell
from course_lib.bench import (
    document,
    stack_door,
    stack_index,
    stack_losses,
    stack_pair,
    stack_rag,
    stack_start,
    stack_usage,
)
from course_lib.bench.goals import stack_goals
from course_lib.bench.machine import cpu_name, cpus, ended_by_sigterm
from course_lib.errors import CourseError
from course_lib.settings import CHECKOUT
from course_lib.stacks import Stack, course_stack

Say = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """How long and how often."""

    rounds: int = 3
    build: bool = True
    requests: int = 300
    """Questions, a round and number of clients."""
    vectors: int = 10_000
    documents_too: bool = True
    """Whether the course's documents are asked with other indexes, too."""
    moments: tuple[float, ...] = (2, 4.5, 7)
    """Seconds after the load began at which a replica is killed."""
    seconds: float = 10
    pause: float = 4
    """Seconds before and after each change of the number of replicas."""
    rates: stack_losses.Rates = field(default_factory=stack_losses.Rates)

    @classmethod
    def quick(cls) -> Plan:
        """Whether it works, in two or three minutes; its figures mean little."""
        # so little that a machine with other work to do is not short of time as well: a queue that is full refuses
        slow = stack_losses.Rates(whole=20, streams=2)
        return cls(
            rounds=1,
            build=False,
            requests=40,
            vectors=500,
            documents_too=False,
            moments=(1,),
            seconds=3,
            pause=1,
            rates=slow,
        )


_Part = Callable[[Stack, Plan, Say], Any]
#: Each part by its name in the figures; they find the stack running with the documents in it, and leave it so.
PARTS: Mapping[str, _Part] = {
    "rag": lambda stack, plan, say: stack_rag.latencies(stack, plan.rounds, plan.requests),
    "cache": lambda stack, plan, say: stack_rag.cached(stack, plan.rounds, plan.requests),
    "quality": lambda stack, plan, say: stack_rag.quality(stack),
    "usage": lambda stack, plan, say: stack_usage.figures(stack, plan.rounds, plan.requests),
    "door": lambda stack, plan, say: stack_door.figures(stack, plan.rounds, plan.requests),
    "index": lambda stack, plan, say: stack_index.on_many(stack, plan.vectors, say),
    "index_on_documents": lambda stack, plan, say: stack_index.on_documents(stack, say) if plan.documents_too else None,
    "kills": lambda stack, plan, say: stack_losses.kills(stack, plan.rates, plan.moments, plan.seconds, say),
    "scaling": lambda stack, plan, say: stack_losses.scaling(stack, plan.rates, plan.rounds, plan.pause, say),
}
#: With the two that need more than that: the one that starts it, and the one with a second stack.
ALL_PARTS = ("start", *PARTS, "side_by_side")


def figures(plan: Plan, *, only: list[str] | None = None, say: Say = lambda line: None) -> dict[str, Any]:
    """Measures, and leaves nothing running.

    Args:
        only: parts to measure; none means all. What is left out is None in the result.
        say: told what is being done.

    Raises:
        CourseError: a name is not known, or the stack failed.
    """
    for name in only or []:
        if name not in ALL_PARTS:
            raise CourseError(f"there is no part {name!r} to measure", do=f"Choose from {', '.join(ALL_PARTS)}.")
    wanted = only or ALL_PARTS
    load_before = os.getloadavg()[0]
    references = images.stack_variables()
    found: dict[str, Any] = dict.fromkeys(ALL_PARTS)
    stack = course_stack(references, short="bench")
    with ended_by_sigterm():
        try:
            if "start" in wanted:
                found["start"] = stack_start.figures(stack, plan.rounds, plan.build, say)
            else:
                stack.up()
            found["ingest"] = stack_rag.ingest(stack)
            for name, part in PARTS.items():
                if name in wanted:
                    say(name.replace("_", " "))
                    found[name] = part(stack, plan, say)
            if "side_by_side" in wanted:
                second = course_stack(references, short="bench-beside")
                found["side_by_side"] = stack_pair.figures(stack, second, say)
        finally:
            stack.remove()
    return {
        "bench": "stack",
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "preliminary": plan.rounds < 3 or load_before > 0.5,
        "machine": {
            "cpu": cpu_name(),
            "cpus": len(cpus()[0]),
            "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
            "system": platform.platform(),
            "load_average_before": round(load_before, 2),
            "engine": _said("docker", "version", "--format={{.Server.Version}}"),
            "compose": _said("docker", "compose", "version", "--short"),
        },
        "images": "registry" if "NGINX_IMAGE" in references else "debian",
        # of the stack's files; a change of this bench is none of what it measures
        "revision": _said("git", "-C", str(CHECKOUT), "log", "-1", "--format=%h", "--", "docker"),
        **found,
        "goals": stack_goals(found),
    }


def read(file: Path) -> dict[str, Any]:
    """Figures that were written before.

    Raises:
        CourseError: the file holds something else.
    """
    return document.read(file, "stack", {*ALL_PARTS, "ingest", "machine", "goals"})


def _said(*argv: str) -> str | None:
    return shell.run(argv, show=False, check=False, timeout=30).output or None
