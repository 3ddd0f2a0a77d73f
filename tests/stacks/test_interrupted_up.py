"""A start that is interrupted leaves nothing: at once after Ctrl-C, by the reaper after `kill -9`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from course_lib import ledger, waits
from course_lib.settings import CHECKOUT
from course_lib.stacks import Stack
from tests.stacks.conftest import compose, objects

pytestmark = pytest.mark.docker

#: One that never gets healthy, so that `up` is still at it, and one that waits for it.
SLOW = compose(
    one={
        "healthcheck": {"test": ["CMD", "false"], "start_period": "300s"},
        "volumes": ["kept:/kept"],
        "networks": ["side"],
    },
    two={"depends_on": {"one": {"condition": "service_healthy"}}},
    top={"volumes": {"kept": {}}, "networks": {"side": {}}},
)
STARTS = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs are started with it ignored
from pathlib import Path
from course_lib.stacks import Project, Stack
Stack(Project("small", (Path(sys.argv[1]),), {"IMAGE": sys.argv[2]})).up()
"""


@pytest.fixture
def starting(
    small_stack: Callable[..., Stack], own_work: Path, small_image: str
) -> tuple[subprocess.Popen[str], Stack]:
    """A process in the middle of `up`: its first container runs, `docker compose` waits to make the second."""
    stack = small_stack(SLOW)
    process = subprocess.Popen(
        [sys.executable, "-c", STARTS, str(own_work / "small.yaml"), small_image],
        stderr=subprocess.PIPE,
        text=True,
        cwd=CHECKOUT,
        env=os.environ | {"COURSE_WORK_DIR": str(own_work / "work")},
    )

    def begun() -> None:
        assert process.poll() is None, process.communicate()[1]
        if not [one for one in stack.states() if one.service == "one" and one.status == "running"]:
            raise waits.NotYet("no container runs")

    waits.until(begun, what="the first container", timeout=180)
    return process, stack


def left(stack: Stack, *kinds: str) -> Callable[[], None]:
    def probe() -> None:
        if found := objects(stack, *kinds):
            raise waits.NotYet(str(found))

    return probe


def compose_processes(stack: Stack) -> list[str]:
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout.splitlines()
    return [line for line in listed if line.startswith("docker compose") and str(stack.project.env_file) in line]


def test_ctrl_c(starting: tuple[subprocess.Popen[str], Stack]) -> None:
    process, stack = starting
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert "KeyboardInterrupt" in said
    assert time.monotonic() - began < 100, "it did not wait for services that never get healthy"
    assert objects(stack, "container", "network") == set() and compose_processes(stack) == []
    waits.until(left(stack), what="the reaper to take the volume, too", timeout=90)


def test_kill_9(starting: tuple[subprocess.Popen[str], Stack]) -> None:
    process, stack = starting
    session = ledger.Session.of(process.pid)
    process.kill()
    process.communicate(timeout=60)
    waits.until(left(stack), what="the reaper", timeout=90)

    def clean() -> None:
        checked = subprocess.run(
            [sys.executable, "-m", "course_lib.cli", "cleanup", "--check", "--json"],
            capture_output=True, text=True, cwd=CHECKOUT, timeout=300,
        )  # fmt: skip
        behind = [one for one in json.loads(checked.stdout)["left_behind"] if stack.project.name in one["name"]]
        if behind or ledger.rows(session=session):
            raise waits.NotYet(f"{behind} {ledger.rows(session=session)}")

    waits.until(clean, what="`course cleanup --check` to be clean", timeout=300, every=1)
    assert objects(stack) == set() and compose_processes(stack) == [], "nobody goes on starting"
    assert not stack.project.folder.exists()
