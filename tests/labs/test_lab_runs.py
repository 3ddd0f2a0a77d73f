"""Finished labs, from top to bottom: untouched, as a solution, and under nbval, against the real engine."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from course_lib.authoring import build
from course_lib.lab import catalog, exercise
from course_lib.settings import CHECKOUT
from tests.labs.conftest import course, require_whole, the_report

pytestmark = [pytest.mark.lab, pytest.mark.docker, pytest.mark.timeout(1800)]

LABS = [pytest.param(lab, id=lab.id) for lab in catalog.LABS.values()]
EXTENSIONS = [pytest.param(lab, id=lab.id) for lab in catalog.EXTENSIONS.values()]
#: What proves the runner and not the lab is done with one lab: each run of a notebook is minutes.
FIRST = LABS[:1]
#: A solution is its steps, which untouched runs prove, and its answers, which tests/exercises prove: whole by night, but for one.
SOLUTIONS = [
    pytest.param(lab, id=lab.id, marks=[pytest.mark.nightly] * bool(number))
    for number, lab in enumerate(catalog.LABS.values())
]


@pytest.mark.nightly
@pytest.mark.parametrize("lab", FIRST)
def test_the_lab_runs_untouched_and_without_solutions(lab: catalog.Lab, clone_without_solutions: Path) -> None:
    """With the network that a machine has; without one every lab does so in test_air_gapped.py."""
    done = course(clone_without_solutions, "run", lab.id)
    assert done.returncode == 0, done.stdout + done.stderr
    require_whole(clone_without_solutions, lab)


@pytest.mark.nightly
@pytest.mark.parametrize("lab", EXTENSIONS)
def test_an_extension_runs_untouched_when_it_is_asked_for(lab: catalog.Lab, clone_without_solutions: Path) -> None:
    done = course(clone_without_solutions, "run", lab.id)
    assert done.returncode == 0, done.stdout + done.stderr
    require_whole(clone_without_solutions, lab)


@pytest.mark.parametrize("lab", FIRST)
def test_the_solution_passes_every_exercise(lab: catalog.Lab) -> None:
    done = course(CHECKOUT, "run", lab.id, "--solutions")
    assert done.returncode == 0, done.stdout + done.stderr
    (ran,) = the_report(CHECKOUT)["labs"]
    assert {e["status"] for e in ran["exercises"]} <= {"passed", "skipped"}
    assert [d for d in ran["deliverables"] if d["status"] == "passed"]


@pytest.mark.skipif(shutil.which("nvidia-smi") is not None, reason="here PROFILE=gpu may be right")
def test_a_machine_that_is_not_fit_is_told_before_the_first_cell(clone_without_solutions: Path) -> None:
    done = course(clone_without_solutions, "run", "4.4.1", PROFILE="gpu")
    assert done.returncode == 2, done.stdout + done.stderr
    found = the_report(clone_without_solutions)
    assert (
        "PROFILE=gpu, but no NVIDIA GPU is to be seen" in found["problem"] and "leave PROFILE out" in found["problem"]
    )
    assert {step["status"] for step in found["labs"][0]["steps"]} == {"not_run"}
    assert found["before_first_cell_s"] is None and found["left_behind"] == []


def nbval(notebook: Path, *, lax: bool, tmp_path: Path, **environment: str) -> tuple[int, int, str]:
    """(passed cells, failed cells, output) of pytest --nbval on a notebook."""
    out = tmp_path / "nbval.xml"
    command = [
        sys.executable,
        "-m",
        "pytest",
        "--nbval-lax" if lax else "--nbval",
        "-q",
        "-p",
        "no:cacheprovider",
        "--timeout=0",
    ]
    env = {**os.environ, "COURSE_WORK_DIR": str(tmp_path / "work"), **environment}
    done = subprocess.run(
        [*command, f"--junitxml={out}", str(notebook)],
        cwd=CHECKOUT,
        env=env,
        capture_output=True,
        text=True,
        timeout=1700,
    )
    cases = ElementTree.parse(out).findall(".//testcase")
    failed = [c for c in cases if c.find("failure") is not None or c.find("error") is not None]
    return len(cases) - len(failed), len(failed), done.stdout + done.stderr


@pytest.mark.parametrize("lab", SOLUTIONS)
def test_nbval_passes_on_the_solution_and_compares_something(lab: catalog.Lab, tmp_path: Path) -> None:
    """With COURSE_STRICT=1, so every exercise's answer has to pass its check."""
    notebook = CHECKOUT / "solutions" / lab.notebook
    cells = [c for c in json.loads(notebook.read_text())["cells"] if c["cell_type"] == "code"]
    compared = [c for c in cells if c["outputs"] and "nbval-ignore-output" not in c["metadata"].get("tags", [])]
    assert compared, "at least one cell's stored output is compared"
    passed, failed, said = nbval(notebook, lax=False, tmp_path=tmp_path, COURSE_STRICT="1")
    assert failed == 0 and passed == len(cells), said


@pytest.mark.parametrize("lab", FIRST)
def test_a_blank_notebook_does_not_pass_as_graded(lab: catalog.Lab, tmp_path: Path) -> None:
    """nbval-lax passes on the untouched lab; with COURSE_STRICT=1 it fails, once for each exercise."""
    graded = [e for e in exercise.of_lab(lab.id).values()]
    _, failed, said = nbval(CHECKOUT / "labs" / lab.notebook, lax=True, tmp_path=tmp_path, COURSE_STRICT="1")
    assert failed == len(graded), said
    assert all(f"exercise {e.id} is not attempted" in said for e in graded)


@pytest.mark.nightly
@pytest.mark.parametrize("lab", FIRST)
def test_nbval_lax_passes_on_the_untouched_lab(lab: catalog.Lab, tmp_path: Path) -> None:
    _, failed, said = nbval(CHECKOUT / "labs" / lab.notebook, lax=True, tmp_path=tmp_path)
    assert failed == 0, said


@pytest.mark.parametrize("lab", [*LABS, *EXTENSIONS])
def test_what_is_generated_is_not_stale(lab: catalog.Lab) -> None:
    assert build.stale(lab) == []


@pytest.mark.parametrize("lab", [*LABS, *EXTENSIONS])
def test_the_executed_solution_tells_nothing_about_a_machine(lab: catalog.Lab) -> None:
    text = (CHECKOUT / "solutions" / lab.notebook).read_text()
    assert not re.search(rf"\b{re.escape(socket.gethostname())}\b", text)
    assert not re.search(r"/(home|root|Users|tmp)/[a-z]", text), re.search(r"/(home|root|Users|tmp)/[a-z].{40}", text)
