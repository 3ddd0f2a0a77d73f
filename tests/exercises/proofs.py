"""What proves a lab's checks: the untouched stub, every wrong answer and the reference answer, each with its outcome."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from course_lib import cluster, images, lab, shell, stacks
from course_lib.authoring import source
from course_lib.lab import catalog, exercise, store
from course_lib.settings import CHECKOUT


@dataclass(frozen=True)
class Case:
    """One thing that is checked, and how its check has to end."""

    lab: str
    exercise: str
    what: str
    status: str
    words: str = ""
    """What the check has to say."""
    cell: str = ""
    """Source of a cell; empty for an answer that is a folder."""
    folder: Path | None = None

    def __str__(self) -> str:
        return f"{self.exercise}-{self.what}"


def cases(lab_id: str) -> list[Case]:
    """Every stub, wrong answer and reference answer of a lab, read from its source."""
    read = source.read(catalog.lab(lab_id))
    found = []
    for name in exercise.of_lab(lab_id):
        cell = {c.part: c.node.source for c in read.cells if c.exercise == name and c.part in ("stub", "answer")}
        found.append(Case(lab_id, name, "stub", "not_attempted", cell=cell["stub"]))
        for number, wrong in enumerate(read.wrong_cells(name), 1):
            words = wrong.node.source.splitlines()[0].removeprefix("# refused: ")
            found.append(Case(lab_id, name, f"wrong-{number}", "not_yet", words, cell=wrong.node.source))
        for folder in read.wrong_folders(name):
            words = (folder / "REFUSED").read_text().strip()
            found.append(Case(lab_id, name, folder.name, "not_yet", words, folder=folder))
        found.append(Case(lab_id, name, "answer", "passed", cell=cell["answer"]))
    return found


def play(case: Case) -> tuple[str, str]:
    """Does what the notebook would do, and returns what was recorded: status and words."""
    lab.begin(case.lab)
    if case.folder is not None:
        lab.files(case.exercise, instead=str(case.folder.relative_to(CHECKOUT)))
        lab.check(case.exercise)
    else:
        exercises = importlib.import_module("course_lib.exercises.lab_" + case.lab.replace(".", "_"))
        rooms = {"cluster": cluster, "images": images, "lab": lab, "shell": shell, "stacks": stacks}
        names: dict[str, Any] = {**rooms, "exercises": exercises}
        exec(case.cell, names)
    status, said, _ = store.exercises(store.run_id())[f"{case.lab}/{case.exercise}"]
    return status, said
