"""Starting the engine where nothing supervises it (containers, WSL without systemd, CI)."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from course_lib import shell, waits
from course_lib.errors import CourseError
from course_lib.host import engine
from course_lib.settings import settings


def start() -> None:
    """Starts the installed engine and waits until it answers.

    Raises:
        CourseError: it can't be started, or does not answer within a minute; quotes its log.
    """
    if Path("/run/systemd/system").exists():
        sudo = [] if os.geteuid() == 0 else ["sudo"]
        shell.run([*sudo, "systemctl", "start", "docker"], timeout=90, do="Look at `journalctl -u docker`.")
        log = None
    else:
        log = _start_detached()
    waits.until(
        _answers,
        what="the Docker engine to answer",
        timeout=60,
        diagnose=lambda: "\n".join(log.read_text(errors="replace").splitlines()[-8:]) if log else "",
        do=f"Read {log}." if log else "Look at `journalctl -u docker`.",
    )


def _answers() -> None:
    found = engine.probe()
    if not found.usable:
        raise waits.NotYet(found.seen)


def _start_detached() -> Path:
    if os.geteuid() != 0:
        raise CourseError(
            "the Docker engine is stopped, and only root can start it here",
            do="Run `sudo dockerd` in another terminal, or `sudo -E make labs`.",
        )
    dockerd = shutil.which("dockerd") or "/usr/sbin/dockerd"
    log = settings().state_dir / "dockerd.log"
    stale = Path("/var/run/docker.pid")
    if stale.exists() and not Path("/proc", stale.read_text().strip() or "0").exists():
        stale.unlink()
    # Its own session, no pipe of ours: a script that waits for our output must not wait for the engine's.
    with log.open("ab") as out:
        subprocess.Popen([dockerd], stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True, cwd="/")
    return log
