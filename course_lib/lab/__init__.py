"""What a notebook sees.

from course_lib import lab

lab.begin("4.4.1")
with lab.step("4.4.1.6"): ...      # a step is what is read back inside it
lab.check("layer-order")           # an exercise's check looks at the live engine
lab.hint("layer-order")
lab.progress()
"""

from __future__ import annotations

import base64
import io
import os
from pathlib import Path
from typing import Any

from course_lib import shell
from course_lib.errors import CourseError
from course_lib.lab import catalog, display, exercise, store
from course_lib.lab.exercise import TODO
from course_lib.lab.steps import step
from course_lib.settings import CHECKOUT, settings

__all__ = ["TODO", "begin", "check", "figure", "files", "hint", "path", "progress", "show_file", "step", "table"]

table = display.table

_lab: list[catalog.Lab] = []


def begin(lab_id: str) -> None:
    """Opens a lab: commands will be shown, and what is recorded belongs to it.

    Raises:
        CourseError: no such lab.
    """
    _lab[:] = [catalog.lab(lab_id)]
    exercise.of_lab(lab_id)
    shell.show_commands_with(display.command)
    os.environ.setdefault("MPLBACKEND", "agg")
    progress()


def _current() -> catalog.Lab:
    if not _lab:
        raise CourseError("no lab is open in this notebook", do='Run its first cell, the one with lab.begin("…").')
    return _lab[0]


def files(name: str, *, instead: str | None = None) -> Path:
    """The folder of an exercise that is answered in files; shows them, makes them from the starter at first."""
    return exercise.files(exercise.find(_current().id, name), instead=instead)


def check(name: str, answer: object = TODO) -> None:
    """Looks whether an exercise is done; records it, and raises only with COURSE_STRICT=1."""
    exercise.check(exercise.find(_current().id, name), answer)


def hint(name: str) -> None:
    """The next hint for an exercise; call it again for one that says more."""
    exercise.hint(exercise.find(_current().id, name))


def show_file(path: str | Path, *, first: int = 1, last: int | None = None) -> None:
    """Shows a file of the checkout, or some of its lines, in colour."""
    display.file(CHECKOUT / path, first=first, last=last)


def path(relative: str) -> Path:
    """A file or folder of the checkout."""
    return CHECKOUT / relative


def figure(name: str, plot: Any, caption: str) -> None:
    """Shows a matplotlib figure and saves it for the run's report.

    Args:
        name: file name without its ending, unique in the lab.
        plot: the figure.
        caption: what one sees; it is the picture's text for who can't see it, too.
    """
    held = io.BytesIO()
    plot.savefig(held, format="png", dpi=110, bbox_inches="tight")
    folder = settings().state_dir / "figures" / store.run_id()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{_current().id}-{name}.png"
    path.write_bytes(held.getvalue())
    store.save_figure(_current().id, name, caption, str(path))
    if display.in_notebook():
        from IPython.display import Image
        from IPython.display import display as show

        show(Image(data=held.getvalue(), alt=caption))
    else:
        print(caption)


def png_data_uri(data: bytes) -> str:
    """A picture as an address that needs no file beside the page."""
    return "data:image/png;base64," + base64.b64encode(data).decode()


def progress() -> None:
    """Draws where one is, over all labs and the extension that is open, from what was recorded."""
    steps, exercises = store.best_so_far()
    rows = []
    for one in dict.fromkeys([*catalog.LABS.values(), *_lab]):
        names = exercise.of_lab(one.id)
        done = sum(steps.get(s.id) == "passed" for s in one.steps)
        passed = sum(exercises.get(e.id) == "passed" for e in names.values())
        rows.append(
            {
                "lab": one.title if one.extension else f"{one.id} {one.title}",
                "steps": f"{done} of {len(one.steps)}",
                "": "■" * done + "□" * (len(one.steps) - done),
                "exercises": f"{passed} of {len(names)}",
                " ": "●" * passed + "○" * (len(names) - passed),
            }
        )
    display.table(rows, caption="Where you are")
