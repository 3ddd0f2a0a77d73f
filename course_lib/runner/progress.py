"""Live progress of a run: a line that moves in a terminal, one line a step in a log."""

from __future__ import annotations

import json
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from course_lib.settings import settings


def _history() -> dict[str, float]:
    path = settings().state_dir / "durations.json"
    return dict(json.loads(path.read_text())) if path.exists() else {}


def remember(notebook: str, seconds: float) -> None:
    """Keeps how long a notebook took, for the next run's remaining time."""
    known = _history() | {notebook: round(seconds, 1)}
    (settings().state_dir / "durations.json").write_text(json.dumps(known))


class RunProgress:
    """How far the run is: which lab, which cell, how long still (by the last run's time)."""

    def __init__(self, names: list[str]) -> None:
        self._console = Console(stderr=True)
        self._known, self._names = _history(), names
        self._bar = Progress(
            TextColumn("{task.description}"), BarColumn(30), TextColumn("{task.completed}/{task.total}"),
            TimeElapsedColumn(), TextColumn("{task.fields[left]}"), console=self._console, transient=True,
        )  # fmt: skip
        self._task: TaskID | None = None
        self._started = 0.0
        self._last = ""

    def __enter__(self) -> RunProgress:
        if self._console.is_terminal:
            self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        if self._console.is_terminal:
            self._bar.stop()

    def begin(self, name: str) -> None:
        self._started, self._last = time.monotonic(), ""
        self.say(f"{name}")
        if self._console.is_terminal:
            self._task = self._bar.add_task(name, total=None, left="")

    def cell(self, number: int, total: int, label: str, name: str) -> None:
        took = time.monotonic() - self._started
        left = self._known.get(name, 0) - took
        said = f"about {left:.0f} s left" if left > 0 else ""
        if self._console.is_terminal and self._task is not None:
            self._bar.update(self._task, completed=number, total=total, description=f"{name} · {label}", left=said)
        elif label.startswith("step") and label != self._last:
            self.say(f"  {took:5.0f} s  {label}  {said}")
        self._last = label

    def end(self) -> None:
        if self._task is not None:
            self._bar.remove_task(self._task)
            self._task = None

    def say(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False)
