"""What waits for a text model: a bounded, fair line of work, and for each request a mailbox from which its client reads the answer."""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable
from typing import Generic, Protocol, TypeVar

from inference_server import clients
from inference_server.engines.base import Delta, Usage
from inference_server.engines.fair import FairQueue, Pace
from inference_server.errors import RequestError, too_late

log = logging.getLogger("inference_server.engine")

Piece = TypeVar("Piece", bound="PieceOfWork")


class Job(Generic[Piece]):
    """One request: who asks, the pieces of work it makes, what they took together, and the mailbox its client reads."""

    def __init__(self) -> None:
        self.client = clients.current.get()
        self.pieces: list[Piece] = []
        self.left = 0  # pieces that are not over
        self.usage = Usage(0, 0)
        self.aio = asyncio.get_running_loop()
        self.mailbox: asyncio.Queue[Delta | RequestError] = asyncio.Queue()

    def tell(self, letter: Delta | RequestError) -> None:
        """Put something in the mailbox from any thread."""
        try:
            self.aio.call_soon_threadsafe(self.mailbox.put_nowait, letter)
        except RuntimeError:  # that event loop is closed: nobody is left to read
            log.debug("an answer came too late")

    async def read(self, limit: float, leave: Callable[[], None]) -> AsyncGenerator[Delta, None]:
        """The mailbox as a stream, for at most ``limit`` seconds; ``leave`` is called at its end, however it comes. Raises RequestError."""
        timer = self.aio.call_later(limit, self.mailbox.put_nowait, too_late(limit))
        try:
            while True:
                delta = await self.mailbox.get()
                if isinstance(delta, RequestError):
                    raise delta
                yield delta
                if delta.usage:
                    return
        finally:
            timer.cancel()
            leave()


class PieceOfWork(Protocol):
    """One answer, or one prompt: what takes a place in the line."""

    client: str
    cost: int

    @property
    def job(self) -> "Job[PieceOfWork]":
        """The request it belongs to."""


class Line(FairQueue[Piece]):
    """Waiting work with a bound. Not locked, its owner is.

    Args:
        places: pieces that may wait and run.
    """

    def __init__(self, places: int) -> None:
        super().__init__()
        self.pace = Pace()
        self._places = places

    def enter(self, job: Job[Piece], running: int) -> None:
        """Take in all of a job, if need be in place of the newest job of whoever holds more than that. Raises RequestError 422, 429."""
        wanted = len(job.pieces)
        if wanted > self._places:
            raise RequestError(
                422, f"This asks for {wanted} texts at once, more than may wait here: ask for fewer.", "too_many_texts"
            )
        gone: list[list[Piece]] = []
        error: RequestError | None = None
        while len(self) + running + wanted > self._places:
            error = error or self._full(job.client)
            newest = self.crowder(job.client, wanted)
            if newest is None:
                for piece in (piece for left in reversed(gone) for piece in left):
                    self.push(piece)  # nobody leaves for a job that does not come in either
                raise error
            gone.append(self.drop(newest.client, set(newest.job.pieces)))  # type: ignore[arg-type]  # a job's pieces are of one kind
        for left in gone:
            left[0].job.tell(self._full(left[0].client))
        for piece in job.pieces:
            self.push(piece)

    def _full(self, client: str) -> RequestError:
        seconds = self.pace.seconds(self.ahead(client), time.monotonic())
        return RequestError(
            429,
            f"{len(self)} requests already wait for this model: try again in {seconds} s.",
            "queue_full",
            retry_after=seconds,
        )
