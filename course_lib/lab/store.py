"""What happened, by run and step: the evidence that steps rest on, and how the exercises went. One SQLite file."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from course_lib.ledger import Session
from course_lib.settings import settings

StepStatus = Literal["running", "passed", "failed", "skipped"]
ExerciseStatus = Literal["passed", "not_yet", "not_attempted", "skipped"]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS steps (
    run TEXT, work TEXT, step TEXT, status TEXT, seconds REAL, why TEXT, at REAL, PRIMARY KEY (run, step));
CREATE TABLE IF NOT EXISTS evidence (
    run TEXT, work TEXT, step TEXT, fact TEXT, backend TEXT, object TEXT, read TEXT, at REAL);
CREATE TABLE IF NOT EXISTS exercises (
    run TEXT, work TEXT, exercise TEXT, status TEXT, said TEXT, deliverable TEXT, at REAL, PRIMARY KEY (run, exercise));
CREATE TABLE IF NOT EXISTS figures (run TEXT, lab TEXT, name TEXT, caption TEXT, path TEXT, at REAL, PRIMARY KEY (run, lab, name));
"""


@dataclass(frozen=True)
class Evidence:
    """One thing that was read back from a backend."""

    fact: str
    """What kind of reading it is, such as `container.healthy`; a step names the facts it needs."""
    backend: str
    object: str
    read: dict[str, Any]
    at: float
    step: str = ""


def run_id() -> str:
    """The run that this process's records belong to: the runner's, or one of this notebook's own."""
    return settings().run_id or f"notebook-{Session.current().id}"


def _work() -> str:
    """Whose records these are: the learner's folder, or a headless run's own."""
    return str(settings().work_dir)


@contextmanager
def database() -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(settings().state_dir / "runs.sqlite3", timeout=30)
    try:
        connection.executescript(_SCHEMA)
        with connection:
            yield connection
    finally:
        connection.close()


def save_step(step: str, status: StepStatus, seconds: float, why: str = "") -> None:
    with database() as db:
        db.execute(
            "INSERT OR REPLACE INTO steps VALUES (?, ?, ?, ?, ?, ?, ?)",
            (run_id(), _work(), step, status, seconds, why, time.time()),
        )


def save_evidence(step: str, found: Evidence) -> None:
    with database() as db:
        db.execute(
            "INSERT INTO evidence VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                run_id(),
                _work(),
                step,
                found.fact,
                found.backend,
                found.object,
                json.dumps(found.read, default=str),
                found.at,
            ),
        )


def save_exercise(
    exercise: str, status: ExerciseStatus, said: str, deliverable: Mapping[str, Any] | None = None
) -> None:
    with database() as db:
        db.execute(
            "INSERT OR REPLACE INTO exercises VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                run_id(),
                _work(),
                exercise,
                status,
                said,
                json.dumps(deliverable) if deliverable else None,
                time.time(),
            ),
        )


def save_figure(lab: str, name: str, caption: str, path: str) -> None:
    with database() as db:
        db.execute(
            "INSERT OR REPLACE INTO figures VALUES (?, ?, ?, ?, ?, ?)",
            (run_id(), lab, name, caption, path, time.time()),
        )


def steps(run: str) -> dict[str, tuple[StepStatus, float, str]]:
    """Each step that a run entered: status, seconds, why."""
    with database() as db:
        found = db.execute("SELECT step, status, seconds, why FROM steps WHERE run = ?", (run,)).fetchall()
    return {step: (status, seconds, why) for step, status, seconds, why in found}


def evidence(run: str, step: str) -> list[Evidence]:
    with database() as db:
        found = db.execute(
            "SELECT fact, backend, object, read, at FROM evidence WHERE run = ? AND step = ? ORDER BY at", (run, step)
        ).fetchall()
    return [Evidence(fact, backend, name, json.loads(read), at, step) for fact, backend, name, read, at in found]


def exercises(run: str) -> dict[str, tuple[ExerciseStatus, str, dict[str, Any] | None]]:
    """Each exercise that a run checked: status, what was said, and the deliverable it is, if it is one."""
    with database() as db:
        found = db.execute("SELECT exercise, status, said, deliverable FROM exercises WHERE run = ?", (run,)).fetchall()
    return {name: (status, said, json.loads(what) if what else None) for name, status, said, what in found}


def figures(run: str, lab: str) -> list[tuple[str, str, str]]:
    """(name, caption, path) of the pictures a lab saved in a run."""
    with database() as db:
        return db.execute(
            "SELECT name, caption, path FROM figures WHERE run = ? AND lab = ? ORDER BY at", (run, lab)
        ).fetchall()


def forget(older_than: float) -> None:
    """Drops what headless runs recorded before a time, and all pictures from before it. What a learner did stays.

    Args:
        older_than: seconds since the epoch.
    """
    with database() as db:
        for table in ("steps", "evidence", "exercises"):
            db.execute(f"DELETE FROM {table} WHERE at < ? AND run NOT LIKE 'notebook-%'", (older_than,))
        old = [Path(path) for (path,) in db.execute("SELECT path FROM figures WHERE at < ?", (older_than,))]
        db.execute("DELETE FROM figures WHERE at < ?", (older_than,))
    for path in old:
        path.unlink(missing_ok=True)
    for folder in {path.parent for path in old if path.parent.is_dir()}:
        if not any(folder.iterdir()):
            folder.rmdir()


def best_so_far() -> tuple[dict[str, StepStatus], dict[str, ExerciseStatus]]:
    """Over all sessions of this work folder: the best status of each step and each exercise.

    Headless runs and builds have a work folder of their own, so what they did is not counted as the learner's.
    """
    step_rank, exercise_rank = (
        ["failed", "running", "skipped", "passed"],
        ["not_attempted", "skipped", "not_yet", "passed"],
    )
    with database() as db:
        step_rows = db.execute("SELECT step, status FROM steps WHERE work = ?", (_work(),)).fetchall()
        exercise_rows = db.execute("SELECT exercise, status FROM exercises WHERE work = ?", (_work(),)).fetchall()
    best_steps: dict[str, StepStatus] = {}
    for name, status in step_rows:
        if name not in best_steps or step_rank.index(status) > step_rank.index(best_steps[name]):
            best_steps[name] = status
    best_exercises: dict[str, ExerciseStatus] = {}
    for name, status in exercise_rows:
        if name not in best_exercises or exercise_rank.index(status) > exercise_rank.index(best_exercises[name]):
            best_exercises[name] = status
    return best_steps, best_exercises
