"""Which notebooks a run executes."""

from __future__ import annotations

import ast
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import nbformat

from course_lib.errors import CourseError
from course_lib.lab import catalog
from course_lib.settings import CHECKOUT


@dataclass(frozen=True)
class Planned:
    """One notebook to execute and the lab it is of."""

    lab: catalog.Lab
    notebook: Path
    kind: str
    """`untouched` (labs/), `solution` (solutions/) or `copy` (a learner's own)."""
    parameters: frozenset[str] = frozenset()
    """Those of the run's parameters that this notebook has."""


def plan(wanted: Sequence[str], *, solutions: bool = False, parameters: Collection[str] = ()) -> list[Planned]:
    """Turns lab ids and notebook paths into notebooks; nothing wanted means every lab, and no extension.

    Args:
        wanted: lab ids or notebooks.
        solutions: the notebooks of solutions/ instead of labs/.
        parameters: names that the run sets; each has to be one of some notebook's.

    Raises:
        CourseError: an unknown lab, one that is asked for twice, a notebook that is missing, broken or of no lab, or a
            parameter that no notebook has.
    """
    planned = []
    for one in wanted or list(catalog.LABS):
        if one.endswith(".ipynb"):
            planned.append(_copy(Path(one)))
            continue
        lab = catalog.lab(one)
        planned.append(
            Planned(
                lab,
                CHECKOUT / ("solutions" if solutions else "labs") / lab.notebook,
                "solution" if solutions else "untouched",
            )
        )
    for number, one_planned in enumerate(planned):
        if any(one_planned.lab.id == other.lab.id for other in planned[:number]):
            raise CourseError(
                f"lab {one_planned.lab.id} is asked for twice, and a report has one result for a lab",
                do="Name it once: by its id, or by your copy's path. For both, run one after the other.",
            )
    had = [names(read(one_planned.notebook)) for one_planned in planned]
    known = frozenset().union(*had)
    if strange := sorted(set(parameters) - known):
        raise CourseError(
            f"no notebook of this run has a parameter {strange[0]}",
            do=f"Choose one of: {', '.join(sorted(known)) or 'none'}.",
        )
    return [replace(one, parameters=own & set(parameters)) for one, own in zip(planned, had, strict=True)]


def names(notebook: nbformat.NotebookNode) -> frozenset[str]:
    """A notebook's parameters: what its cell tagged `parameters` assigns."""
    source = "\n".join(cell.source for cell in notebook.cells if "parameters" in cell.metadata.get("tags", []))
    try:
        assigned = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name)]
    except SyntaxError:
        return frozenset()  # the run itself will say so
    return frozenset(node.id for node in assigned if isinstance(node.ctx, ast.Store))


def _copy(path: Path) -> Planned:
    for lab in catalog.every().values():
        if lab.has_copy(path):
            return Planned(lab, path.resolve(), "copy")
    raise CourseError(
        f"{path.name} is no notebook of a lab",
        do="Give a copy that kept its name, such as work/lab-4.4.1-docker-ml-image.ipynb.",
    )


def read(path: Path) -> nbformat.NotebookNode:
    """A notebook from its file.

    Raises:
        CourseError: no such file, or it is not a notebook any more.
    """
    if not path.is_file():
        raise CourseError(
            f"there is no notebook {path.name} in {path.parent.name}/",
            do="Check the path; `course build` makes labs/ from solutions/.",
        )
    try:
        found: nbformat.NotebookNode = nbformat.read(path, as_version=4)
        nbformat.validate(found)
    except (
        nbformat.reader.NotJSONError,
        nbformat.ValidationError,
        AttributeError,
        KeyError,
        TypeError,
        ValueError,  # undecodable bytes, too
    ) as error:
        raise CourseError(
            f"{path.name} is not a readable notebook",
            why=str(error).splitlines()[0][:200],
            do=f"If it is your copy, rename it and run `make lab`, which copies the original again: nothing in labs/ was touched. If it is in labs/: git checkout {path.name}.",
        ) from None
    return found
