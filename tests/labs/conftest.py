"""A second checkout on the same machine, and `course …` in it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from course_lib.lab import catalog
from course_lib.runner import report
from course_lib.settings import CHECKOUT


@pytest.fixture(scope="session")
def clone_without_solutions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a learner without any answers has: this tree, as a second checkout on the same machine."""
    clone = tmp_path_factory.mktemp("clone") / "course"
    left_out = (".git", ".venv", ".cache", "work", "reports", "solutions", "training", "__pycache__", ".*_cache")
    shutil.copytree(CHECKOUT, clone, ignore=shutil.ignore_patterns(*left_out))
    return clone


def environment(checkout: Path, **more: str) -> dict[str, str]:
    """This process's environment with that checkout's own course_lib, and none of ours."""
    return {k: v for k, v in os.environ.items() if not k.startswith("COURSE_")} | {"PYTHONPATH": str(checkout), **more}


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "course_lib.cli", *arguments]


def course(checkout: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    """`course …` of a checkout, to its end."""
    return subprocess.run(
        command(*arguments),
        cwd=checkout,
        env=environment(checkout, **more),
        capture_output=True,
        text=True,
        timeout=1700,
    )


def the_report(checkout: Path) -> dict[str, Any]:
    """A checkout's latest report."""
    return dict(json.loads((checkout / "reports" / "latest" / "report.json").read_text()))


def require_whole(checkout: Path, lab: catalog.Lab) -> None:
    """A checkout's latest report is of this lab, untouched, with each step done and nothing left behind."""
    found = the_report(checkout)
    jsonschema.validate(found, report.schema())
    (ran,) = found["labs"]
    assert [s["status"] for s in ran["steps"]] == ["passed"] * len(lab.steps)
    assert all(s["evidence"] for s in ran["steps"])
    assert {e["status"] for e in ran["exercises"]} <= {"not_attempted", "skipped"}
    assert found["left_behind"] == []
    page = (checkout / "reports" / "latest" / "index.html").read_text()
    assert "Everything passed" in page and all(step.id in page for step in lab.steps)
    junit = ElementTree.parse(checkout / "reports" / "latest" / "junit.xml")
    assert len(junit.findall(".//testcase")) == len(lab.steps) and not junit.findall(".//failure")
