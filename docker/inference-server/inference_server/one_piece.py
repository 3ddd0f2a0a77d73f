"""An answer's head and its body leave together, in one packet where they fit.

uvicorn writes them one after the other, and between the two the interpreter may give its turn to an engine's thread, for some
milliseconds on a busy machine. A server that dies just then has sent a head without a body. A proxy in front has passed that on and
can't ask another replica any more: the request is lost, though it could have been answered elsewhere.
"""

import asyncio
from collections.abc import Iterable
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class OnePieceProtocol(HttpToolsProtocol):
    """uvicorn's protocol on such a transport."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(cast(asyncio.Transport, _OnePiece(transport, self.loop)))


class _OnePiece:
    """A transport that keeps a head, and what follows it in the same turn of the loop, until the next turn: a stream's first token is
    not due yet, and whoever reads an answer finds its line in the log."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._kept: list[bytes] = []
        self._closing = False

    def write(self, data: bytes) -> None:
        if self._kept:
            self._kept.append(data)
        elif data.startswith(b"HTTP/1."):
            self._kept.append(data)
            self._loop.call_soon(self._flush)
        else:
            self._transport.write(data)

    def writelines(self, pieces: Iterable[bytes]) -> None:
        self.write(b"".join(pieces))

    def close(self) -> None:
        self._closing = True
        if not self._kept:
            self._transport.close()

    def is_closing(self) -> bool:
        return self._closing or self._transport.is_closing()

    def _flush(self) -> None:
        kept, self._kept = b"".join(self._kept), []
        if not self._transport.is_closing():  # its client may be gone since
            self._transport.write(kept)
        if self._closing:
            self._transport.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
