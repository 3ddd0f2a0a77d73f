"""What the course made, written down before it is made.

A row precedes every container, network, volume, image, process and folder. Its lifetime is *run* (gone when the session
that wrote it ends) or *kept* (base images, build cache: listed with sizes, removed by `course cleanup --all`).
The same facts go onto Docker objects as labels, so that cleanup works after this file, or the clone, is gone.
"""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil

from course_lib import shell
from course_lib.settings import CHECKOUT, settings

Lifetime = Literal["run", "kept"]
Kind = Literal["container", "network", "volume", "image", "process", "folder"]

LABEL = "org.course-lab"

_SCHEMA = """
CREATE TABLE IF NOT EXISTS objects (
    kind TEXT NOT NULL, name TEXT NOT NULL, lifetime TEXT NOT NULL,
    checkout TEXT NOT NULL, session TEXT NOT NULL, pid INTEGER NOT NULL, born REAL NOT NULL, written REAL NOT NULL,
    PRIMARY KEY (kind, name)
)
"""


@dataclass(frozen=True)
class Session:
    """A process that makes things, told from a later one that happens to get the same number."""

    pid: int
    born: float

    @property
    def id(self) -> str:
        return f"{self.pid}-{self.born:.2f}"

    @classmethod
    def current(cls) -> Session:
        return cls(os.getpid(), round(psutil.Process().create_time(), 2))

    @classmethod
    def parse(cls, text: str) -> Session:
        pid, born = text.split("-")
        return cls(int(pid), float(born))

    @property
    def alive(self) -> bool:
        try:
            process = psutil.Process(self.pid)
            return abs(process.create_time() - self.born) < 2 and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False


@dataclass(frozen=True)
class Row:
    """One thing the course made, or was about to."""

    kind: Kind
    name: str
    lifetime: Lifetime
    checkout: str
    session: Session


@contextmanager
def _database() -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(settings().state_dir / "ledger.sqlite3", timeout=30)
    try:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute(_SCHEMA)
        with connection:
            yield connection
    finally:
        connection.close()


def write_down(kind: Kind, name: str, lifetime: Lifetime = "run") -> Row:
    """Writes the row of a thing that is about to be made; the session's first *run* row starts the reaper."""
    session = Session.current()
    row = Row(kind, name, lifetime, str(CHECKOUT), session)
    with _database() as db:
        db.execute(
            "INSERT OR REPLACE INTO objects VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (kind, name, lifetime, row.checkout, session.id, session.pid, session.born, time.time()),
        )
    if lifetime == "run":
        _start_reaper(session)
    return row


def strike(kind: Kind, name: str) -> None:
    """Takes a row out, after its thing was seen to be gone."""
    with _database() as db:
        db.execute("DELETE FROM objects WHERE kind = ? AND name = ?", (kind, name))


def rows(
    *, lifetime: Lifetime | None = None, checkout: Path | None = None, session: Session | None = None
) -> list[Row]:
    """The rows that match, oldest first."""
    with _database() as db:
        found = db.execute("SELECT kind, name, lifetime, checkout, pid, born FROM objects ORDER BY written").fetchall()
    all_rows = [Row(kind, name, life, where, Session(pid, born)) for kind, name, life, where, pid, born in found]
    return [
        row
        for row in all_rows
        if (lifetime is None or row.lifetime == lifetime)
        and (checkout is None or row.checkout == str(checkout))
        and (session is None or row.session == session)
    ]


def label_prefix(kind: str) -> str:
    """Where the labels of a kind begin. A container inherits its image's labels, so the two must not share any:
    a container that somebody starts from the course's image is theirs, not the course's."""
    return f"{LABEL}.image" if kind == "image" else LABEL


def labels(lifetime: Lifetime = "run", kind: str = "container") -> dict[str, str]:
    """The labels every Docker object of the course carries."""
    prefix = label_prefix(kind)
    found = {f"{prefix}.lifetime": lifetime, f"{prefix}.checkout": settings().checkout_id}
    # What is kept outlives its session; without the label, building it again makes the very same image.
    return found | ({f"{prefix}.session": Session.current().id} if lifetime == "run" else {})


def label_arguments(lifetime: Lifetime = "run", kind: str = "container") -> list[str]:
    """The same labels as `docker` takes them."""
    return [f"--label={key}={value}" for key, value in labels(lifetime, kind).items()]


_reapers: set[str] = set()


def _start_reaper(session: Session) -> None:
    """Starts the detached process that outlives this one and removes what it leaves (see reaper.py)."""
    if session.id in _reapers:
        return
    _reapers.add(session.id)
    os.environ[shell.SESSION_VARIABLE] = session.id  # children inherit it; the reaper itself does not
    log = (settings().state_dir / "reaper.log").open("ab")
    subprocess.Popen(
        [sys.executable, "-m", "course_lib.reaper", session.id],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        start_new_session=True,
        cwd="/",
        env={key: value for key, value in os.environ.items() if key != shell.SESSION_VARIABLE}
        | {"COURSE_STATE_DIR": str(settings().state_dir)},
    )
    log.close()
