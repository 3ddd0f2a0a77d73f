"""Connections that cost their client nothing and the server a file each: how many there may be, and how long one may dawdle.

uvicorn limits how long a connection may rest after an answer, and nothing else: one that never sends a whole request stays for good.
"""

import socket
import time
from collections.abc import Iterable
from contextlib import suppress

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

FILES = 65_536


class SlowHeads:
    """Closes connections on which the head of a request has been due for longer than ``limit`` seconds.

    What a request holds after its head is waited for by ``middleware.BodyLimit``, which can say so in an answer.
    """

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._due: dict[HttpToolsProtocol, tuple[RequestResponseCycle, float]] = {}

    def sweep(self, connections: Iterable[object]) -> None:
        """Look at all of uvicorn's connections; to be called about once a second, which costs a request nothing."""
        now = time.monotonic()
        due = {}
        for connection in connections:
            if not isinstance(connection, HttpToolsProtocol) or not _head_is_due(connection):
                continue
            seen = self._due.get(connection)
            # Another cycle than last time: there was a whole request meanwhile.
            since = seen[1] if seen and seen[0] is connection.cycle else now
            due[connection] = (connection.cycle, since)
            if now - since > self._limit:
                connection.transport.close()
        self._due = due


def _head_is_due(connection: HttpToolsProtocol) -> bool:
    """Whether no request is being answered and uvicorn's own clock for idle connections does not run, as it does not from the first byte."""
    answered = connection.cycle is None or connection.cycle.response_complete
    return answered and connection.timeout_keep_alive_task is None


def allow_many() -> None:
    """Raise the soft limit of open files to the hard one: 1,024, which shells and services often have, is for programs that call select()."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES if hard == resource.RLIM_INFINITY else min(hard, FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):  # a sandbox may forbid it
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def give_up_on_silent(listener: socket.socket, seconds: float) -> None:
    """Drop connections whose client takes nothing of what was sent for so long: it lost its power or its line, or reads on purpose nothing."""
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux; connections inherit it from the listener
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(seconds * 1000))
