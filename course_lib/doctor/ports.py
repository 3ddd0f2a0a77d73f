"""Ports of 127.0.0.1, where all that the labs publish is reached. They take free ones, never 5000 and 7000."""

from __future__ import annotations

import socket
from collections.abc import Iterator

from course_lib.doctor.check import Check
from course_lib.doctor.finding import Finding, error, note, ok
from course_lib.doctor.machine import Machine

_JUPYTER = 8888


def can_bind(port: int) -> bool:
    """Whether a server could listen on a port of 127.0.0.1 now; 0 stands for any free one."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
            probe.listen()
        except OSError:
            return False
    return True


def can_reach_itself() -> bool:
    """Whether a client finds a server on 127.0.0.1: listening alone works even where the interface is down."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        try:
            socket.create_connection(server.getsockname(), timeout=2).close()
        except OSError:
            return False
    return True


def examine(machine: Machine) -> Iterator[Finding]:
    if not can_bind(0) or not can_reach_itself():
        yield error(
            "no program can reach another on 127.0.0.1",
            "See that the loopback interface is up (`sudo ip link set lo up`) and that no security software stands between.",
        )
        return
    yield ok("127.0.0.1 can be reached; the labs take free ports there (never 5000 and 7000, which macOS holds)")
    if not can_bind(_JUPYTER):
        yield note(
            f"port {_JUPYTER} is taken (another Jupyter?): `course lab` takes the next free one and prints its address"
        )


CHECK = Check("ports", examine)
