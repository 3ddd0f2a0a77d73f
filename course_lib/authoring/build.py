"""`course build`: writes labs/*.ipynb, executes the solutions, and says what is stale."""

from __future__ import annotations

import os
import re
import socket
import tempfile
from pathlib import Path

import nbformat

from course_lib.authoring import source
from course_lib.errors import CourseError
from course_lib.lab import catalog
from course_lib.runner import execute, rules
from course_lib.settings import CHECKOUT, settings

LABS = CHECKOUT / "labs"


def learner_notebook(lab: catalog.Lab) -> str:
    """The text of a lab's notebook: no answers, no outputs."""
    return _text(source.notebook(source.read(lab), without=("answer", "wrong")))


def write_learner_notebook(lab: catalog.Lab) -> Path:
    """Writes labs/<notebook>."""
    path = LABS / lab.notebook
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(learner_notebook(lab))
    return path


def solution_notebook(lab: catalog.Lab) -> nbformat.NotebookNode:
    """The solution's notebook, not executed."""
    return source.notebook(source.read(lab), without=("stub", "wrong"))


def execute_solution(lab: catalog.Lab, on_cell: execute.OnCell) -> Path:
    """Executes a solution with strict checks and writes it with its outputs, free of host names and paths.

    Raises:
        CourseError: a cell failed, or an exercise's answer does not pass.
    """
    made = solution_notebook(lab)
    made.metadata["course"] = {"source_digest": source.read(lab).digest()}
    with tempfile.TemporaryDirectory(prefix="course-build-") as held:
        # It runs where the solutions are, so that it finds what a reader of it would.
        path, output = source.SOLUTIONS / lab.notebook, Path(held, Path(lab.notebook).name)
        draft = path.with_name(f".{path.name}")
        nbformat.write(made, draft)
        try:
            environment = {
                "COURSE_STRICT": "1",
                "COURSE_WORK_DIR": str(Path(held, "work")),
                "COURSE_RUN_ID": f"build-{os.getpid()}",
            }
            done = execute.execute(draft, output, environment=environment, parameters={}, on_cell=on_cell)
        finally:
            draft.unlink(missing_ok=True)
    problems = ([done.error] if done.error else []) + rules.broken(done.notebook, lab)
    if problems:
        raise CourseError(
            f"the solution of lab {lab.id} did not run", why="\n".join(problems), do="Mend solutions/ and build again."
        )
    path.write_text(_text(scrub(done.notebook, Path(held))))
    return path


def stale(lab: catalog.Lab) -> list[str]:
    """What of a lab's generated files is not what its source makes now; empty when nothing is."""
    found = []
    learner, executed = LABS / lab.notebook, source.SOLUTIONS / lab.notebook
    if not learner.is_file() or learner.read_text() != learner_notebook(lab):
        found.append(
            f"labs/{lab.notebook} is not what solutions/{source.path_of(lab).relative_to(source.SOLUTIONS)} makes"
        )
    recorded = nbformat.read(executed, as_version=4) if executed.is_file() else nbformat.v4.new_notebook()
    if recorded.metadata.get("course", {}).get("source_digest") != source.read(lab).digest():
        found.append(f"solutions/{lab.notebook} was executed from another source than there is now")
    elif [c.source for c in recorded.cells] != [c.source for c in solution_notebook(lab).cells]:
        found.append(f"solutions/{lab.notebook} was edited by hand")
    return found


def scrub(executed: nbformat.NotebookNode, scratch: Path) -> nbformat.NotebookNode:
    """Takes out of an executed notebook what tells about the machine: host name, home, checkout, times, papermill's notes."""
    replaced = {
        str(CHECKOUT): "course",
        str(scratch): "",
        str(settings().state_dir): "state",
        str(Path.home()): "~",
        socket.gethostname(): "host",
    }
    # As whole words: a machine called "vm" must not change "llvm".
    longest_first = sorted(replaced, key=len, reverse=True)
    pattern = re.compile("|".join(rf"(?<!\w){re.escape(key)}(?!\w)" for key in longest_first))
    scratch_paths = re.compile(rf"{re.escape(tempfile.gettempdir())}/[\w.-]+")

    def clean(value: object) -> object:
        if isinstance(value, str):
            # What lies in the scratch folder lies in the checkout where a learner runs the notebook: `work/…`.
            inside = value.replace(f"{scratch}/", "")
            return scratch_paths.sub("…", pattern.sub(lambda hit: replaced[hit.group()], inside))
        if isinstance(value, list):
            return [clean(one) for one in value]
        if isinstance(value, dict):
            return {key: one if key == "image/png" else clean(one) for key, one in value.items()}
        return value

    executed.metadata.pop("papermill", None)
    executed.metadata["language_info"] = {"name": "python"}
    for cell in executed.cells:
        for note in ("papermill", "execution", "_sphinx_cell_id"):
            cell.metadata.pop(note, None)
        if cell.cell_type == "code" and "nbval-ignore-output" in cell.metadata.get("tags", []):
            for output in cell.outputs:  # a compared output is the same everywhere, or comparing it would fail
                output.pop("transient", None)
                output.update(nbformat.from_dict(clean({k: v for k, v in output.items() if k != "metadata"})))
    return executed


def _text(made: nbformat.NotebookNode) -> str:
    return str(nbformat.writes(made, version=4)) + "\n"
