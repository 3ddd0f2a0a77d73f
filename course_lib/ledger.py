"""What the course made, written down before it is made.

A row precedes every container, network, volume, image, process and folder, every change of a kernel setting, and what is made on a
cluster of somebody's own (kube_rows.py). Its lifetime is *run* (gone when the session
that wrote it ends) or *kept* (base images, build cache: listed with sizes, removed by `course cleanup --all`).
The same facts go onto Docker objects as labels, so that cleanup works after this file, or the clone, is gone.
"""

from __future__ import annotations

import hashlib
import os
import platform
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Literal

import psutil

from course_lib import shell
from course_lib.settings import CHECKOUT, settings

Lifetime = Literal["run", "kept"]
Kind = Literal["container", "network", "volume", "image", "process", "folder", "sysctl", "namespace", "cordon"]

LABEL = "org.course-lab"

_SCHEMA = """
CREATE TABLE IF NOT EXISTS made (
    kind TEXT NOT NULL, name TEXT NOT NULL, lifetime TEXT NOT NULL,
    checkout TEXT NOT NULL, session TEXT NOT NULL, written REAL NOT NULL,
    PRIMARY KEY (kind, name, session)
)
"""


@cache
def this_host() -> str:
    """Eight hexadecimal digits of the place where process numbers mean what they mean here.

    A container that borrows the host's Docker socket, or another machine that shares this home folder, numbers its
    processes otherwise: whether one of theirs lives can't be seen from here.
    """
    namespace, machine = Path("/proc/self/ns/pid"), Path("/etc/machine-id")
    parts = [platform.node(), str(namespace.readlink()) if namespace.is_symlink() else ""]
    parts.append(machine.read_text() if machine.exists() else "")
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:8]


def birth(pid: int) -> str:
    """When a process began, in a form that no step of the clock changes; empty when there is no such process."""
    stat, boot = Path(f"/proc/{pid}/stat"), Path("/proc/sys/kernel/random/boot_id")
    try:
        if boot.exists():  # Linux: ticks since the boot, and which boot
            after_name = stat.read_text().rpartition(")")[2].split()
            return "" if after_name[0] == "Z" else f"{boot.read_text()[:8]}-{after_name[19]}"
        process = psutil.Process(pid)
        return "" if process.status() == psutil.STATUS_ZOMBIE else f"{process.create_time():.0f}"
    except (OSError, psutil.Error):
        return ""


@dataclass(frozen=True)
class Session:
    """A process that makes things, told from a later one that happens to get the same number."""

    pid: int
    born: str
    host: str = field(default_factory=this_host)

    @property
    def id(self) -> str:
        return f"{self.pid}.{self.born}.{self.host}"

    @classmethod
    def of(cls, pid: int) -> Session:
        return cls(pid, birth(pid))

    @classmethod
    def current(cls) -> Session:
        return cls.of(os.getpid())

    @classmethod
    def parse(cls, text: str) -> Session:
        """The session of an id.

        Raises:
            ValueError: it is none.
        """
        pid, born, host = text.split(".")
        return cls(int(pid), born, host)

    @property
    def alive(self) -> bool:
        """Whether it runs; one of another host counts as running, since nobody here can know."""
        return self.host != this_host() or (bool(self.born) and birth(self.pid) == self.born)


@dataclass(frozen=True)
class Row:
    """One thing the course made, or was about to."""

    kind: str
    name: str
    lifetime: Lifetime
    checkout: str
    session: Session


@contextmanager
def _database() -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(settings().state_dir / "ledger.sqlite3", timeout=30)
    try:
        connection.execute(_SCHEMA)
        with connection:
            yield connection
    finally:
        connection.close()


def write_down(kind: Kind, name: str, lifetime: Lifetime = "run") -> Row:
    """Writes the row of a thing that is about to be made; the session's first *run* row starts the reaper."""
    row = Row(kind, name, lifetime, str(CHECKOUT), Session.current())
    with _database() as db:
        values = (kind, name, lifetime, row.checkout, row.session.id, time.time())
        db.execute("INSERT OR REPLACE INTO made VALUES (?, ?, ?, ?, ?, ?)", values)
    if lifetime == "run":
        _start_reaper(row.session)
    return row


def strike(kind: str, name: str) -> None:
    """Takes a thing's rows out, after it was seen to be gone."""
    with _database() as db:
        db.execute("DELETE FROM made WHERE kind = ? AND name = ?", (kind, name))


def rows(
    *, lifetime: Lifetime | None = None, checkout: Path | None = None, session: Session | None = None
) -> list[Row]:
    """The rows that match, oldest first."""
    with _database() as db:
        found = db.execute("SELECT kind, name, lifetime, checkout, session FROM made ORDER BY written").fetchall()
    all_rows = [Row(kind, name, life, where, Session.parse(by)) for kind, name, life, where, by in found]
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


def labels(lifetime: Lifetime = "run", kind: str = "container", *, reference: str = "") -> dict[str, str]:
    """The labels every Docker object of the course carries.

    Args:
        reference: an image's own tag. Images built on it inherit its labels, and are told from it by this one.
    """
    prefix = label_prefix(kind)
    found = {f"{prefix}.lifetime": lifetime, f"{prefix}.checkout": settings().checkout_id}
    if kind == "image":
        found[f"{prefix}.reference"] = reference
    # What is kept outlives its session; without the label, building it again makes the very same image.
    # It is emptied and not left out, because an image inherits its base's.
    found[f"{prefix}.session"] = Session.current().id if lifetime == "run" else ""
    return found


def label_arguments(lifetime: Lifetime = "run", kind: str = "container", *, reference: str = "") -> list[str]:
    """The same labels as `docker` takes them."""
    return [f"--label={key}={value}" for key, value in labels(lifetime, kind, reference=reference).items()]


_reapers: set[str] = set()


def _start_reaper(session: Session) -> None:
    """Starts the detached process that outlives this one and removes what it leaves (see reaper.py)."""
    if session.id in _reapers:
        return
    _reapers.add(session.id)
    shell.mark_children_with(session.id)
    with (settings().state_dir / "reaper.log").open("ab") as log:
        subprocess.Popen(
            [sys.executable, "-m", "course_lib.reaper", session.id],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            cwd="/",
            env=os.environ | {"COURSE_STATE_DIR": str(settings().state_dir)},
        )
