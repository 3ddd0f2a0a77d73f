"""A stack on a disk that is full: at its start, and when a service fills it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from course_lib.errors import CourseError
from course_lib.stacks import Stack
from tests.stacks.conftest import compose, objects

pytestmark = pytest.mark.docker


def test_a_disk_that_is_full_says_so_and_nothing_stays(small_engine: Path, small_stack: Callable[..., Stack]) -> None:
    alone = {"network_mode": "none"}  # this engine has no bridge
    fills = ["sh", "-c", "head -c 400000000 /dev/zero > /kept/index 2> /dev/null"]
    # however long it writes: without a check it would count as well after two seconds
    test = {"test": ["CMD", "test", "-e", "/never"], "start_period": "60s", "interval": "60s"}
    never = {"healthcheck": {**test, "start_interval": "60s"}}
    stack = small_stack(
        compose(
            one={**alone, "command": fills, "volumes": ["kept:/kept"], **never},
            top={"volumes": {"kept": {}}},
        )
    )
    with pytest.raises(CourseError) as failed:
        stack.up()
    assert "not every service got healthy: one" in failed.value.what
    assert "it has logged nothing" in failed.value.why and "What it writes to is full" in failed.value.why

    with (small_engine / "the-rest").open("wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
        while True:
            file.write(bytes(512))
    with pytest.raises(CourseError) as failed:
        stack.up()
    assert failed.value.what == "the disk is full" and "docker system df" in failed.value.do
    assert objects(stack, "container", "network") == set()
    stack.remove()
    assert objects(stack) == set()
