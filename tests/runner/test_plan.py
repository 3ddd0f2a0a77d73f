"""What can't be run is refused before anything is made, with a sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from course_lib.errors import CourseError
from course_lib.lab import catalog
from course_lib.runner import plan
from course_lib.settings import CHECKOUT


def test_an_unknown_lab_is_named_with_those_there_are() -> None:
    with pytest.raises(CourseError) as refused:
        plan.plan(["4.4.99"])
    assert "4.4.99" in str(refused.value) and "4.4.1" in refused.value.do


@pytest.mark.parametrize(
    "text", ["{ this is not JSON", "[]", '{"cells": 3}', '{"nbformat": 4, "nbformat_minor": 5, "metadata": {}}', ""]
)
def test_a_broken_notebook_is_told_without_a_traceback(tmp_path: Path, text: str) -> None:
    path = tmp_path / "lab-4.4.1-docker-ml-image.ipynb"
    path.write_text(text)
    with pytest.raises(CourseError, match="not a readable notebook"):
        plan.plan([str(path)])


def test_a_missing_or_foreign_notebook_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CourseError, match="there is no notebook"):
        plan.plan([str(tmp_path / "lab-4.4.1-docker-ml-image.ipynb")])
    with pytest.raises(CourseError, match="no notebook of a lab"):
        plan.plan([str(tmp_path / "holiday.ipynb")])


def test_an_extension_runs_when_it_is_named_and_only_then(tmp_path: Path) -> None:
    assert not any(one.extension for one in catalog.LABS.values())  # what is run where nothing is named
    (named,) = plan.plan(["rollouts"])
    assert named.lab.extension and named.notebook == CHECKOUT / "labs" / "extensions" / "rollouts.ipynb"
    mine = tmp_path / "rollouts-mine.ipynb"
    mine.write_text(named.notebook.read_text())
    (copy,) = plan.plan([str(mine)])
    assert (copy.lab, copy.kind) == (named.lab, "copy")


def test_a_lab_that_is_asked_for_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CourseError, match="asked for twice"):
        plan.plan(["4.4.1", "4.4.1"])
    with pytest.raises(CourseError, match="asked for twice"):
        plan.plan(["4.4.1", str(tmp_path / "lab-4.4.1-docker-ml-image.ipynb")])
