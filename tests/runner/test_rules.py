"""Each strict rule refuses what it is there for, and lets a clean notebook pass."""

from __future__ import annotations

import nbformat
import pytest

from course_lib.lab import catalog
from course_lib.runner import rules

LAB = catalog.lab("4.4.1")


def clean() -> nbformat.NotebookNode:
    made: nbformat.NotebookNode = nbformat.v4.new_notebook()
    for step in LAB.steps:
        cell = nbformat.v4.new_code_cell("print(1)", metadata={"tags": [f"step-{step.id}"]}, execution_count=1)
        made.cells.append(cell)
    return made


def with_cell(source: str, **more: object) -> nbformat.NotebookNode:
    made = clean()
    made.cells.append(nbformat.v4.new_code_cell(source, **more))
    return made


def test_a_clean_notebook_breaks_nothing() -> None:
    assert rules.broken(clean(), LAB) == []


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("!ls", "magic"),
        ("files = !ls", "magic"),
        ("%time 1", "magic"),
        ("%%bash\nfalse", "magic"),
        ("%badmagic", "magic"),
        ("lab.step?", "magic"),
        ("try:\n    pass\nexcept:\n    pass", "catches every exception"),
        ("try:\n    pass\nexcept Exception as e:\n    print(e)", "catches every exception"),
        ("try:\n    pass\nexcept (ValueError, BaseException):\n    pass", "catches every exception"),
        ("try:\n    pass\nexcept Exception:\n    if False:\n        raise", "catches every exception"),
        ("import contextlib\nwith contextlib.suppress(Exception):\n    1 / 0", "suppresses every exception"),
        ("from contextlib import suppress\nwith suppress(KeyError, BaseException):\n    1 / 0", "suppresses every"),
        ("from course_lib import lab\nlab.record('x', 'docker', 'y')", "only the rooms record evidence"),
        ("from course_lib.lab import steps", "only the rooms record evidence"),
        ("import course_lib.lab.store as s", "only the rooms record evidence"),
        ("from course_lib.lab.steps import record", "only the rooms record evidence"),
        ("from course_lib import lab\nlab.steps.record('x', 'docker', 'y')", "only the rooms record evidence"),
        ("from course_lib import images\nimages.bases._mark('x')", "private"),
        ("from course_lib.images.bases import _mark", "private"),
        ("def broken(:", "not Python"),
    ],
)
def test_source_that_hides_failures_is_refused(source: str, words: str) -> None:
    assert any(words in said for said in rules.broken(with_cell(source), LAB))


@pytest.mark.parametrize(
    "source",
    [
        "try:\n    pass\nexcept Exception:\n    raise",
        "try:\n    pass\nexcept Exception as e:\n    print(e)\n    raise ValueError from e",
        "try:\n    pass\nexcept ValueError:\n    pass",
        "import contextlib\nwith contextlib.suppress(FileNotFoundError):\n    pass",
        "from course_lib import lab\nlab.begin('4.4.1')\nprint(lab.__name__)",
        "x = 'ends in a question?'",
        "print(5 % 3)",
    ],
)
def test_honest_source_passes(source: str) -> None:
    assert rules.broken(with_cell(source), LAB) == []


def test_outputs_that_show_an_error_are_refused() -> None:
    error = nbformat.v4.new_output("error", ename="ValueError", evalue="no", traceback=[])
    assert any("ended in ValueError" in said for said in rules.broken(with_cell("1", outputs=[error]), LAB))
    stderr = nbformat.v4.new_output("stream", name="stderr", text="Traceback (most recent call last):\n ...")
    assert any("traceback" in said for said in rules.broken(with_cell("1", outputs=[stderr]), LAB))


def test_the_tag_that_lets_errors_pass_is_refused() -> None:
    assert any(
        "raises-exception" in said
        for said in rules.broken(with_cell("1", metadata={"tags": ["raises-exception"]}), LAB)
    )


def test_a_step_that_is_missing_or_did_not_run_is_named() -> None:
    made = clean()
    made.cells[2].execution_count = None
    del made.cells[5]
    said = "\n".join(rules.broken(made, LAB))
    assert "a cell of step 4.4.1.3 did not run" in said and "no cell carries the tag step-4.4.1.6" in said
