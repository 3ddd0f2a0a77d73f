"""Load from compiled clients, which leave the machine to the servers: wrk for whole answers, a small C program for streams."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from course_lib import shell
from course_lib.errors import CourseError
from course_lib.host import packages
from course_lib.settings import CHECKOUT

_CLIENT = Path(__file__).parent / "client"
CACHE = CHECKOUT / ".cache" / "bench"


@dataclass(frozen=True)
class Load:
    """What a load found: the client's JSON, and its share of one CPU."""

    figures: dict[str, Any]
    cpu_share: float

    @property
    def tokens_per_s(self) -> float:
        return float(self.figures["tokens"] / self.figures["seconds"])

    @property
    def requests_per_s(self) -> float:
        return float(self.figures["requests"] / self.figures["seconds"])


def require_wrk() -> str:
    """wrk's version; installed from the distribution's packages where it is missing.

    Raises:
        CourseError: it can't be had here.
    """
    if shutil.which("wrk") is None:
        try:
            packages.install("wrk")
        except CourseError as error:
            raise CourseError(
                "the load client `wrk` is not on this machine",
                why=str(error),
                do="Install it (Debian and Ubuntu: apt-get install wrk; macOS: brew install wrk) and run the command again.",
            ) from None
    said = shell.run(["wrk", "--version"], show=False, check=False).stdout
    return " ".join(said.split()[1:2])


def stream_client() -> Path | str:
    """The compiled client for streams, or why there is none."""
    source = _CLIENT / "stream_client.c"
    compiled = CACHE / f"stream_client-{hashlib.sha256(source.read_bytes()).hexdigest()[:8]}"
    if compiled.exists():
        return compiled
    if shutil.which("cc") is None:
        try:
            packages.install("gcc", "libc6-dev")
        except CourseError:
            return "first tokens are timed by a C program, and this machine has no C compiler (the packages gcc and libc6-dev)"
    CACHE.mkdir(parents=True, exist_ok=True)
    shell.run(["cc", "-std=c11", "-O2", "-o", str(compiled), str(source)], show=False)
    return compiled


def whole_answers(
    port: int,
    path: str,
    bodies: Path,
    *,
    first: int,
    clients: int,
    seconds: int,
    prefix: Sequence[str] = (),
    may_be_empty: bool = False,
) -> Load:
    """Closed loop of wrk's connections; answers that end within the time count. `prefix` holds it to its CPUs;
    `may_be_empty` is for warming up, when nothing has to come in time. Else it is tried for longer where nothing came.

    Raises:
        CourseError: a request failed; a rate with failures in it says nothing.
    """
    for longer in (1,) if may_be_empty else (1, 3, 9):
        command = [*prefix, "wrk", "-t1", f"-c{clients}", f"-d{seconds * longer}s", "--timeout", "60s"]
        command += ["-s", str(_CLIENT / "load.lua"), f"http://127.0.0.1:{port}{path}", "--", str(bodies), str(first)]
        found = _measure(command, seconds * longer, may_be_empty=True)
        if may_be_empty or found.figures["requests"]:
            return found
    raise CourseError(
        f"no request was answered within {seconds * longer} s", do="Give the machine some rest, or more time."
    )


def streams(
    client: Path,
    port: int,
    path: str,
    bodies: Path,
    marker: str,
    *,
    first: int,
    clients: int,
    warm_up: int,
    seconds: int,
    prefix: Sequence[str] = (),
) -> Load:
    """Closed loop of streaming clients. `marker` is what stands before a piece of text in the server's events. It is tried for
    longer where none came to its end.

    Raises:
        CourseError: a request failed.
    """
    for longer in (1, 3, 9):
        command = [*prefix, client, port, path, bodies, first, marker, clients, warm_up, seconds * longer]
        found = _measure([str(part) for part in command], warm_up + seconds * longer, may_be_empty=True)
        if found.figures["requests"]:
            return found
    raise CourseError(f"no stream ended within {seconds * longer} s", do="Give the machine some rest, or more time.")


def _measure(command: list[str], seconds: float, may_be_empty: bool = False) -> Load:
    with tempfile.TemporaryFile("w+") as said:
        started = time.monotonic()
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT, start_new_session=True
        )
        alarm = threading.Timer(seconds + 90, process.kill)
        alarm.start()
        try:
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
        finally:
            alarm.cancel()
        elapsed = time.monotonic() - started
        said.seek(0)
        text = said.read()
    found = re.search(r"^RESULT (\{.*\})$", text, re.M)
    if process.returncode != 0 or not found:
        raise CourseError("the load client ended without a result", why=text[-800:])
    figures = json.loads(found[1])
    if figures["failed"] or not (figures["requests"] or may_be_empty):
        what = f"{figures['failed']} requests failed under load" if figures["failed"] else "no request was answered"
        raise CourseError(what, why=text[-800:])
    return Load(figures, (used.ru_utime + used.ru_stime) / elapsed)
