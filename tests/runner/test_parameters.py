"""Parameters of a run: NAME=VALUE on the command line, in the notebook's own cell when it runs."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest

from course_lib.cli import commands
from course_lib.errors import CourseError
from course_lib.runner import execute, plan


def test_whole_numbers_are_numbers_and_the_rest_is_text() -> None:
    said = commands._parameters(["load_requests=50", "low=-1", "name=a=b", "empty="])
    assert said == {"load_requests": 50, "low": -1, "name": "a=b", "empty": ""}


@pytest.mark.parametrize("wrong", ["load_requests", "=3", "two words=3"])
def test_what_is_no_pair_is_refused(wrong: str) -> None:
    with pytest.raises(CourseError, match="not NAME=VALUE"):
        commands._parameters([wrong])


def test_a_parameter_that_no_notebook_has_is_refused_with_those_there_are() -> None:
    (planned,) = plan.plan(["4.4.1"], parameters=["load_requests"])
    assert planned.parameters == {"load_requests"}
    with pytest.raises(CourseError, match="no notebook of this run has a parameter load_request") as refused:
        plan.plan(["4.4.1"], parameters=["load_request"])
    assert "load_requests" in refused.value.do


def test_a_parameter_replaces_the_notebooks_own(tmp_path: Path) -> None:
    made = nbformat.v4.new_notebook(metadata={"language_info": {"name": "python"}})
    made.cells = [
        nbformat.v4.new_code_cell("load_requests = 1", metadata={"tags": ["parameters"]}),
        nbformat.v4.new_code_cell("print(load_requests * 2)"),
    ]
    nbformat.write(made, tmp_path / "in.ipynb")
    done = execute.execute(
        tmp_path / "in.ipynb", tmp_path / "out.ipynb", environment={}, parameters={"load_requests": 50}, on_cell=print
    )
    assert not done.error and done.notebook.cells[-1].outputs[0].text == "100\n"
