"""How long the stack takes until every service is healthy: from nothing, with its images to build, again, and down and up."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from course_lib import shell
from course_lib.bench.samples import Samples
from course_lib.stacks import Stack

Say = Callable[[str], None]


def figures(stack: Stack, rounds: int, build: bool, say: Say) -> dict[str, Any]:
    """Starts and stops the stack; leaves it running. Seconds, each the median of the rounds.

    Args:
        build: begin once without the images that the stack builds itself.
    """
    found: dict[str, Any] = {"built_s": None, "images_built": 0, "build_cache": None}
    if build:
        say("start: without the images that the stack builds")
        stack.remove()
        found["images_built"] = _forget_images(stack)
        found["build_cache"] = _build_cache()
        if found["images_built"]:
            found["built_s"] = round(_seconds(stack.up), 2)
    times, replaced = Samples(), 0
    for number in range(rounds):
        say(f"start: round {number + 1} of {rounds}")
        stack.remove()
        times.add("cold_s", _seconds(stack.up))
        before = _containers(stack)
        times.add("again_s", _seconds(stack.up))
        replaced += len(before ^ _containers(stack))
        times.add("down_s", _seconds(stack.down))
        times.add("up_after_down_s", _seconds(stack.up))
    return {
        **found,
        **times.medians(2),
        "samples": times.as_json(2),
        "rounds": rounds,
        "containers": len(_containers(stack)),
        "replaced_by_second_up": replaced,
    }


def _seconds(what: Callable[[], object]) -> float:
    began = time.monotonic()
    what()
    return time.monotonic() - began


def _containers(stack: Stack) -> set[str]:
    """The ids of the project's containers; another id is another container."""
    mine = f"--filter=label=com.docker.compose.project={stack.project.name}"
    return set(shell.run(["docker", "ps", "--all", "--quiet", "--no-trunc", mine], show=False).output.split())


def _forget_images(stack: Stack) -> int:
    """Takes the tags away that the stack's builds give; what another stack of this checkout uses stays. Returns how many went."""
    stack.project.prepare()
    services = stack.project.config()["services"].values()
    images = sorted({what["image"] for what in services if "build" in what})
    return sum(shell.succeeds(["docker", "image", "rm", image], timeout=60) for image in images)


def _build_cache() -> str:
    """How much the engine's build cache holds, in its own words."""
    said = shell.run(["docker", "system", "df", "--format={{json .}}"], show=False, check=False, timeout=120)
    rows = [json.loads(line) for line in said.stdout.splitlines() if line]
    return next((str(row["Size"]) for row in rows if row["Type"] == "Build Cache"), "unknown")
