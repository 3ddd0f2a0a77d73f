"""Exercises: what is asked, the learner's answer, and the check that looks at the live engine.

An exercise's logic is apart from how it is shown; exceptions are its outcomes. The checks themselves live in
course_lib/exercises/, one module a lab, found by the lab's number.
"""

from __future__ import annotations

import filecmp
import importlib
import inspect
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from course_lib.errors import CourseError
from course_lib.lab import display, store
from course_lib.settings import CHECKOUT, settings

STARTERS = CHECKOUT / "labs" / "starters"


class Todo:
    """What a learner's answer is before there is one."""

    def __repr__(self) -> str:
        return "lab.TODO"


TODO: Final[Any] = Todo()


class NotAttempted(Exception):
    """The answer is still `lab.TODO`, or the files are still the starter's."""


class NotYet(Exception):
    """The answer is there and does not do it yet.

    Args:
        seen: what the check saw.
        expected: what it expected instead.
        look: where to look, without giving the answer away.
    """

    def __init__(self, seen: str, *, expected: str, look: str) -> None:
        super().__init__(seen)
        self.seen, self.expected, self.look = seen, expected, look


class Skipped(Exception):
    """This machine can't do the exercise (no GPU, say); the text says why."""


class ExerciseNotPassed(CourseError):
    """Raised instead of a remark when COURSE_STRICT=1: a grade must not rest on an exercise that is open."""


#: A check takes the learner's value or folder, raises an outcome, or returns what it measured.
Check = Callable[..., Mapping[str, Any] | None]


@dataclass(frozen=True)
class Exercise:
    """One exercise of a lab."""

    lab: str
    name: str
    title: str
    hints: tuple[str, ...]
    check: Check
    files: bool
    deliverable: bool

    @property
    def id(self) -> str:
        return f"{self.lab}/{self.name}"

    @property
    def starter(self) -> Path:
        return STARTERS / self.lab / self.name

    @property
    def work(self) -> Path:
        return settings().work_dir / self.lab / self.name


_registry: dict[str, dict[str, Exercise]] = {}
_given: dict[str, Path] = {}
_hints_shown: dict[str, int] = {}


def exercise(
    lab: str, name: str, title: str, *, hints: tuple[str, ...], files: bool = False, deliverable: bool = False
) -> Callable[[Check], Check]:
    """Declares the function below it as the check of an exercise."""

    def declare(check: Check) -> Check:
        _registry.setdefault(lab, {})[name] = Exercise(lab, name, title, hints, check, files, deliverable)
        return check

    return declare


def of_lab(lab: str) -> dict[str, Exercise]:
    """A lab's exercises by name, in the order in which its module declares them."""
    importlib.import_module("course_lib.exercises.lab_" + lab.replace(".", "_"))
    return _registry.get(lab, {})


def find(lab: str, name: str) -> Exercise:
    """One exercise.

    Raises:
        CourseError: the lab has none of that name; lists those it has.
    """
    known = of_lab(lab)
    if name not in known:
        raise CourseError(f"lab {lab} has no exercise {name!r}", do=f"Choose one of: {', '.join(known)}.")
    return known[name]


def files(one: Exercise, *, instead: str | None = None) -> Path:
    """The folder a learner works in, made from the starter when it is first asked for and never overwritten.

    Args:
        instead: another folder to check, relative to the checkout (how the solutions bring their own).
    """
    if instead is not None:
        folder = CHECKOUT / instead
        if not folder.is_dir():
            raise CourseError(f"there is no folder {instead}", do="Give a folder of this checkout.")
    else:
        folder = one.work
        if not folder.exists():
            shutil.copytree(one.starter, folder, ignore=shutil.ignore_patterns("__pycache__"))
    _given[one.id] = folder
    for name in sorted(_files(folder)):
        display.file(folder / name)
    return folder


def evaluate(
    one: Exercise, answer: object = TODO
) -> tuple[store.ExerciseStatus, list[tuple[str, str]], Mapping[str, Any] | None]:
    """Runs a check: the status, lines that explain it, and what was measured."""
    try:
        if one.files:
            folder = _given.get(one.id, one.work)
            if not folder.exists() or _same(folder, one.starter):
                raise NotAttempted
            measured = one.check(folder)
        elif inspect.signature(one.check).parameters:
            if answer is TODO:
                raise NotAttempted
            measured = one.check(answer)
        else:
            measured = one.check()
    except NotAttempted:
        where = (
            f"edit {display._short(one.work)}/"
            if one.files
            else "replace lab.TODO"
            if inspect.signature(one.check).parameters
            else "do it in a terminal"
        )
        return "not_attempted", [("to do", f"{where}, then run this cell again")], None
    except NotYet as outcome:
        return "not_yet", [("seen", outcome.seen), ("expected", outcome.expected), ("look at", outcome.look)], None
    except Skipped as outcome:
        return "skipped", [("why", str(outcome))], None
    except CourseError as error:  # the learner's Dockerfile does not build, say: that is an answer too
        return (
            "not_yet",
            [
                ("seen", error.what + (f"\n{error.why}" if error.why else "")),
                ("look at", error.do or "the lines above"),
            ],
            None,
        )
    return "passed", [(k.replace("_", " "), str(v)) for k, v in (measured or {}).items()], measured


def check(one: Exercise, answer: object = TODO) -> None:
    """Checks an answer, shows and records how it went.

    Raises:
        ExerciseNotPassed: COURSE_STRICT=1, and it is not passed.
    """
    status, lines, measured = evaluate(one, answer)
    said = "\n".join(f"{label}: {text}" for label, text in lines)
    deliverable = (
        {"lab": one.lab, "name": one.name, "path": display._short(_given.get(one.id, one.work)), **(measured or {})}
        if one.deliverable
        else None
    )
    store.save_exercise(one.id, status, said, deliverable)
    display.verdict(f"exercise {one.name}: {one.title}", status, lines)
    if settings().strict and status not in ("passed", "skipped"):
        raise ExerciseNotPassed(f"exercise {one.id} is {status.replace('_', ' ')}", why=said)


def hint(one: Exercise) -> None:
    """Shows the next hint below those before it; after the last one, says that there are no more."""
    asked = _hints_shown.get(one.id, 0) + 1
    _hints_shown[one.id] = min(asked, len(one.hints))
    lines = [(f"hint {i} of {len(one.hints)}", text) for i, text in enumerate(one.hints[:asked], 1)]
    if asked > len(one.hints):
        lines.append(("no more", "These were all. The check's own words say what it saw; solutions/ shows one way."))
    display.verdict(f"exercise {one.name}: {one.title}", "hint", lines)


def _same(folder: Path, starter: Path) -> bool:
    """Whether a folder still holds exactly the starter's files, whatever an editor or a file browser left in it."""
    names = _files(starter)
    return names == _files(folder) and all(filecmp.cmp(starter / n, folder / n, shallow=False) for n in names)


def _files(folder: Path) -> set[Path]:
    """A folder's files by relative path, without hidden ones (.DS_Store, .ipynb_checkpoints) and compiled Python."""
    found = {p.relative_to(folder) for p in folder.rglob("*") if p.is_file()}
    return {path for path in found if not any(part.startswith(".") or part == "__pycache__" for part in path.parts)}
