"""A run that is interrupted still cleans up, and (unless it was killed outright) still reports every step."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from course_lib import shell, waits
from course_lib.lab import catalog
from tests.labs.conftest import command, course, environment, the_report

pytestmark = [pytest.mark.lab, pytest.mark.docker, pytest.mark.timeout(600)]

LAB = catalog.lab("4.4.1")


@pytest.fixture
def in_the_middle(
    clone_without_solutions: Path, inference_image: str, tmp_path: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """A run of lab 4.4.1 whose step 5 has a container up right now."""
    before = containers(clone_without_solutions)
    with (tmp_path / "out").open("wb") as out:
        run = subprocess.Popen(
            command("run", LAB.id),
            cwd=clone_without_solutions,
            env=environment(clone_without_solutions),
            stdout=out,
            stderr=out,
        )

        def health_container() -> None:
            if run.poll() is not None:
                pytest.fail(f"the run ended early: {(tmp_path / 'out').read_text()}")
            if not any(name.endswith("-health") for name in containers(clone_without_solutions) - before):
                raise waits.NotYet("no container of step 5")

        waits.until(health_container, what="step 5", timeout=240)
        yield run
        if run.poll() is None:
            run.kill()
        run.wait()


def prefix(checkout: Path) -> str:
    """How the names of a checkout's things begin; another checkout may be at work beside it."""
    return f"course-{hashlib.sha256(str(checkout.resolve()).encode()).hexdigest()[:8]}"


def containers(checkout: Path) -> set[str]:
    """A checkout's containers that are there now, by name."""
    names = shell.run(["docker", "ps", "--all", "--format={{.Names}}"], show=False).output.split()
    return {name for name in names if name.startswith(prefix(checkout))}


def kernels_of(run: subprocess.Popen[bytes]) -> list[psutil.Process]:
    return [p for p in psutil.Process(run.pid).children() if "ipykernel_launcher" in " ".join(p.cmdline())]


def require_clean(checkout: Path) -> None:
    """Nothing of this checkout is left behind or in use, by `course cleanup --check`."""

    def clean() -> None:
        found = json.loads(course(checkout, "cleanup", "--check", "--json").stdout)
        mine = [one for one in found["left_behind"] + found["in_use"] if one["name"].startswith(prefix(checkout))]
        if mine:
            raise waits.NotYet(str(mine))

    waits.until(clean, what="`course cleanup --check` to be clean", timeout=180, every=1)


def require_every_step(checkout: Path) -> list[str]:
    (lab,) = the_report(checkout)["labs"]
    assert [step["id"] for step in lab["steps"]] == [step.id for step in LAB.steps]
    assert lab["status"] == "failed" and the_report(checkout)["left_behind"] == []
    return [step["status"] for step in lab["steps"]]


def test_ctrl_c(in_the_middle: subprocess.Popen[bytes], clone_without_solutions: Path) -> None:
    in_the_middle.send_signal(signal.SIGINT)
    assert in_the_middle.wait(240) == 1
    statuses = require_every_step(clone_without_solutions)
    assert statuses[:4] == ["passed"] * 4 and statuses[5:] == ["not_run"] * 2
    assert "interrupted" in the_report(clone_without_solutions)["problem"]
    require_clean(clone_without_solutions)


def test_a_killed_kernel(in_the_middle: subprocess.Popen[bytes], clone_without_solutions: Path) -> None:
    (kernel,) = kernels_of(in_the_middle)
    kernel.kill()
    assert in_the_middle.wait(240) == 1
    assert require_every_step(clone_without_solutions)[4] == "failed"
    require_clean(clone_without_solutions)


def test_kill_9_of_the_run(in_the_middle: subprocess.Popen[bytes], clone_without_solutions: Path) -> None:
    in_the_middle.kill()
    in_the_middle.wait()
    require_clean(clone_without_solutions)
    assert not [name for name in containers(clone_without_solutions) if name.endswith("-health")]


def test_a_second_run_of_the_same_checkout_is_refused(
    in_the_middle: subprocess.Popen[bytes], clone_without_solutions: Path
) -> None:
    second = course(clone_without_solutions, "run", LAB.id)
    assert second.returncode == 1
    assert str(in_the_middle.pid) in second.stderr and "second clone" in second.stderr
    assert "Traceback" not in second.stderr
