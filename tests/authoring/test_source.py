"""A lab's source: parts that are missing, doubled or misspelt are refused with file and line; the rest becomes notebooks."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from course_lib.authoring import build, source
from course_lib.lab import catalog, exercise
from course_lib.lab.exercise import Exercise

LAB = catalog.Lab("4.4.1", "tiny", "Tiny", (catalog.Step("4.4.1.1", "One", ("x",)),))

GOOD = """\
# %% [markdown]
# # Tiny

# %% tags=["step-4.4.1.1"]
print("step")

# %% tags=["stub", "ex-add"]
answer = lab.TODO

# %% tags=["answer", "ex-add"]
answer = 3

# %% tags=["wrong", "ex-add"]
# refused: not three
answer = 4
"""


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    monkeypatch.setattr(source, "SOLUTIONS", tmp_path)
    one = Exercise("4.4.1", "add", "Add", ("h",), lambda value: None, files=False, deliverable=False)
    monkeypatch.setattr(exercise, "of_lab", lambda lab: {"add": one})

    def write(text: str) -> source.Source:
        (tmp_path / "lab-4.4.1-tiny.py").write_text(text)
        return source.read(LAB)

    return write


def test_parts_go_where_they_belong(written) -> None:  # type: ignore[no-untyped-def]
    found = written(GOOD)
    learner = source.notebook(found, without=("answer", "wrong"))
    solution = source.notebook(found, without=("stub", "wrong"))
    assert [c.source for c in learner.cells] == ["# Tiny", 'print("step")', "answer = lab.TODO"]
    assert [c.source for c in solution.cells] == ["# Tiny", 'print("step")', "answer = 3"]
    assert learner.cells[1].metadata.tags == ["step-4.4.1.1"] and learner.cells[2].metadata.tags == ["ex-add"]
    assert all(not c.get("outputs") for c in learner.cells)


def test_ids_come_from_content_and_are_unique(written) -> None:  # type: ignore[no-untyped-def]
    text = GOOD + "\n# %%\nprint(1)\n\n# %%\nprint(1)\n"
    first = source.notebook(written(text), without=())
    again = source.notebook(written(text), without=())
    assert [c.id for c in first.cells] == [c.id for c in again.cells]
    assert len({c.id for c in first.cells}) == len(first.cells)
    longer = source.notebook(written("# %% [markdown]\n# before\n\n" + text), without=())
    assert [c.id for c in longer.cells[1:]] == [c.id for c in first.cells], "a cell before it changes no cell's id"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("answer = 3", "answer = 3\n\n# %% tags=[\"answer\", \"ex-add\"]\nanswer = 5"), "lab-4.4.1-tiny.py:13: exercise add has a second answer"),
        (('# %% tags=["answer", "ex-add"]\nanswer = 3\n', ""), "exercise add has no answer cell"),
        (('# %% tags=["stub", "ex-add"]\nanswer = lab.TODO\n', ""), "exercise add has no stub cell"),
        (('# %% tags=["wrong", "ex-add"]\n# refused: not three\nanswer = 4\n', ""), "no wrong answer"),
        (("# refused: not three\n", ""), "lab-4.4.1-tiny.py:13: a wrong answer starts with"),
        (('"stub", "ex-add"', '"stub"'), "lab-4.4.1-tiny.py:7: the tags stub, answer and wrong go together"),
        (('"stub", "ex-add"', '"ex-add"'), "go together"),
        (('"answer", "ex-add"', '"answer", "ex-sub"'), "there is no exercise 'sub'"),
        (('"wrong", "ex-add"', '"wrong", "answer", "ex-add"'), "can't be"),
        (('tags=["step-4.4.1.1"]', ""), "no cell carries the tag step-4.4.1.1"),
        (("step-4.4.1.1", "step-4.4.1.1\", \"step-4.4.1.7"), "names no step"),
    ],
)  # fmt: skip
def test_a_source_that_is_not_whole_is_refused(written, change: tuple[str, str], words: str) -> None:  # type: ignore[no-untyped-def]
    assert change[0] in GOOD
    with pytest.raises(source.SourceError) as refused:
        written(GOOD.replace(*change))
    assert words in str(refused.value)


def test_what_tells_about_the_machine_is_scrubbed(tmp_path: Path) -> None:
    import socket

    import nbformat

    from course_lib.settings import CHECKOUT

    cell = nbformat.v4.new_code_cell("1", execution_count=1, metadata={"tags": ["nbval-ignore-output"]})
    said = f"built {CHECKOUT}/docker on {socket.gethostname()}-host in {Path.home()}/x and {tmp_path}/work"
    cell.outputs = [
        nbformat.v4.new_output("stream", name="stdout", text=said),
        nbformat.v4.new_output("display_data", data={"text/html": said, "image/png": "aGk="}),
    ]
    cell.metadata["papermill"] = {"duration": 1}
    made = nbformat.v4.new_notebook(cells=[cell], metadata={"papermill": {"input_path": str(tmp_path)}})
    text = nbformat.writes(build.scrub(made, tmp_path))
    for trace in (str(CHECKOUT), f"{Path.home()}/", str(tmp_path), "papermill"):
        assert trace not in text
    assert not re.search(rf"\b{socket.gethostname()}\b", text)
    assert "aGk=" in text and "course/docker" in text and " work" in text and "/work" not in text
