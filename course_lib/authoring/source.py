"""The source of a lab: a jupytext percent script whose tagged cells are the notebook's parts.

Tags: `step-<id>` on a step's cell; `stub`, `answer` and `wrong` on an exercise's cells, each together with `ex-<name>`.
A `wrong` cell starts with `# refused: words`, which the check's message has to contain; wrong answers in files are folders
`wrong-…` beside the `answer` folder, with those words in a file called REFUSED.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import jupytext
import nbformat

from course_lib.errors import CourseError
from course_lib.lab import catalog, exercise
from course_lib.settings import CHECKOUT

SOLUTIONS = CHECKOUT / "solutions"
_PARTS = ("stub", "answer", "wrong")


class SourceError(CourseError):
    """A part of a lab's source is missing, doubled or misspelt; names file and line."""


@dataclass(frozen=True)
class Cell:
    """One cell of the source and the line it starts on."""

    node: nbformat.NotebookNode
    line: int

    @property
    def tags(self) -> list[str]:
        return list(self.node.metadata.get("tags", []))

    @property
    def part(self) -> str:
        return next((tag for tag in self.tags if tag in _PARTS), "")

    @property
    def exercise(self) -> str:
        return next((tag.removeprefix("ex-") for tag in self.tags if tag.startswith("ex-")), "")


@dataclass(frozen=True)
class Source:
    """A lab's source, read and found whole."""

    lab: catalog.Lab
    path: Path
    cells: tuple[Cell, ...]

    @property
    def answers(self) -> Path:
        """The folder of the reference and wrong answers that are files."""
        return SOLUTIONS / self.lab.id

    def wrong_folders(self, name: str) -> list[Path]:
        """The wrong answers in files of an exercise."""
        return sorted((self.answers / name).glob("wrong-*"))

    def wrong_cells(self, name: str) -> list[Cell]:
        return [cell for cell in self.cells if cell.part == "wrong" and cell.exercise == name]

    def digest(self) -> str:
        """Sixteen hexadecimal digits of everything the executed solution depends on in the repository's lab texts."""
        hashed = hashlib.sha256(self.path.read_bytes())
        for folder in (self.answers, exercise.STARTERS / self.lab.id):
            for file in sorted(p for p in folder.rglob("*") if p.is_file() and "__pycache__" not in p.parts):
                hashed.update(str(file.relative_to(CHECKOUT)).encode() + b"\0" + file.read_bytes())
        return hashed.hexdigest()[:16]


def path_of(lab: catalog.Lab) -> Path:
    return SOLUTIONS / lab.notebook.replace(".ipynb", ".py")


def read(lab: catalog.Lab) -> Source:
    """A lab's source.

    Raises:
        SourceError: it is missing, or not whole.
    """
    path = path_of(lab)
    if not path.is_file():
        raise SourceError(
            f"lab {lab.id} has no source {path.name} in solutions/", do="Restore it: git checkout solutions/"
        )
    text = path.read_text()
    lines = [number for number, line in enumerate(text.splitlines(), 1) if re.match(r"# %%(\s|$)", line)]
    nodes = jupytext.reads(text, fmt="py:percent").cells
    if len(nodes) != len(lines):
        raise SourceError(
            f"{path.name}: {len(lines)} cell markers make {len(nodes)} cells",
            do="Start the text with a `# %%` marker, after the header.",
        )
    found = Source(lab, path, tuple(Cell(node, line) for node, line in zip(nodes, lines, strict=True)))
    _check(found)
    return found


def _check(source: Source) -> None:
    def refuse(line: int, what: str) -> None:
        raise SourceError(
            f"{source.path.name}:{line}: {what}", do="Mend it in solutions/, never in labs/, which is generated."
        )

    known = exercise.of_lab(source.lab.id)
    seen: dict[tuple[str, str], int] = {}
    for cell in source.cells:
        parts = [tag for tag in cell.tags if tag in _PARTS]
        if len(parts) > 1:
            refuse(cell.line, f"a cell can't be {' and '.join(parts)} at once")
        if bool(cell.part) != bool(cell.exercise):
            refuse(cell.line, "the tags stub, answer and wrong go together with ex-<name>, and it with one of them")
        if cell.exercise and cell.exercise not in known:
            refuse(cell.line, f"there is no exercise {cell.exercise!r} in course_lib/exercises")
        if cell.part in ("stub", "answer"):
            if (cell.exercise, cell.part) in seen:
                refuse(
                    cell.line,
                    f"exercise {cell.exercise} has a second {cell.part} (the first is in line {seen[cell.exercise, cell.part]})",
                )
            seen[cell.exercise, cell.part] = cell.line
        if cell.part == "wrong" and not cell.node.source.startswith("# refused: "):
            refuse(cell.line, "a wrong answer starts with `# refused: words of the message`")
    for name, one in known.items():
        for part in ("stub", "answer"):
            if (name, part) not in seen:
                refuse(1, f"exercise {name} has no {part} cell")
        if not source.wrong_cells(name) and not source.wrong_folders(name):
            refuse(seen[name, "answer"], f"exercise {name} has no wrong answer that its check must refuse")
        for folder in source.wrong_folders(name):
            if not (folder / "REFUSED").is_file():
                refuse(
                    seen[name, "answer"],
                    f"{folder.relative_to(CHECKOUT)} has no file REFUSED with words of the check's message",
                )
        if one.files and not one.starter.is_dir():
            refuse(seen[name, "stub"], f"exercise {name} has no starter in labs/starters/{source.lab.id}/{name}")
    tags = {tag for cell in source.cells for tag in cell.tags}
    for step in source.lab.steps:
        if f"step-{step.id}" not in tags:
            refuse(1, f"no cell carries the tag step-{step.id}")
    for tag in tags:
        if tag.startswith("step-") and tag.removeprefix("step-") not in {s.id for s in source.lab.steps}:
            refuse(1, f"the tag {tag} names no step of lab {source.lab.id}")


def notebook(source: Source, *, without: Iterable[str]) -> nbformat.NotebookNode:
    """The notebook of a source, some parts left out; cell ids come from content, so that equal sources make equal files."""
    left_out = set(without)
    made: nbformat.NotebookNode = nbformat.v4.new_notebook()
    made.metadata = nbformat.from_dict(
        {
            "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        }
    )
    ids: dict[str, int] = {}
    for cell in source.cells:
        if cell.part in left_out:
            continue
        node = nbformat.from_dict(dict(cell.node))
        identity = hashlib.sha256(f"{node.cell_type}\0{node.source}".encode()).hexdigest()[:12]
        ids[identity] = ids.get(identity, 0) + 1
        node["id"] = identity if ids[identity] == 1 else f"{identity}-{ids[identity]}"
        tags = [tag for tag in cell.tags if tag not in _PARTS]
        node["metadata"] = nbformat.from_dict({"tags": tags} if tags else {})
        if node.cell_type == "code":
            node["outputs"], node["execution_count"] = [], None
        made.cells.append(node)
    nbformat.validate(made)
    return made
