"""What a benchmark needs of the machine: its CPUs, and an end that leaves nothing running."""

from __future__ import annotations

import os
import platform
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

_SERVER_CPUS = 4  # where there are enough CPUs to give the load client its own


def cpus() -> tuple[list[int], list[int]]:
    """CPUs of the server and of the client: apart where there are enough, else all for both."""
    found = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))
    if len(found) >= _SERVER_CPUS + 2:
        return found[:_SERVER_CPUS], found[_SERVER_CPUS:]
    return found, found


def cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    named = re.search(r"^model name\s*:\s*(.+)$", info.read_text(), re.M) if info.exists() else None
    return named[1] if named else platform.processor() or platform.machine()


@contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """SIGTERM unwinds the stack, so that every server is ended on the way.

    Where the exception came up in something that ignores exceptions (a callback of C code, say), the block goes on to its
    end, and the process ends as it was told to then.
    """
    told: list[int] = []

    def leave(number: int, frame: FrameType | None) -> None:
        told.append(number)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one would stop the tidying up
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
    if told:
        raise SystemExit(128 + told[0])
