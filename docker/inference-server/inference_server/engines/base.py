"""The two kinds of engine, as every contract sees them. A contract never knows which library computes."""

from collections import defaultdict
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
STOPPING = "the server is stopping"


@dataclass(frozen=True, slots=True)
class Sampling:
    """How one answer is drawn. ``max_tokens`` None: the server's default, cut to what still fits."""

    max_tokens: int | None = None
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens in and out of one answer."""

    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of an answer. The last one has ``finish`` ("stop" or "length"), ``usage`` and, perhaps, no text."""

    text: str
    finish: str | None = None
    usage: Usage | None = None


@dataclass(frozen=True, slots=True)
class Vitals:
    """How an engine is: ``why`` is empty while it is well."""

    why: str = ""
    running: int = 0
    waiting: int = 0

    @property
    def alive(self) -> bool:
        """Whether its loop still moves."""
        return not self.why


class Engine(Protocol):
    """What both kinds share."""

    batch_sizes: defaultdict[int, int]
    """How often a batch of each size was computed. Counted by the engine without a lock, read by /metrics."""

    def vitals(self) -> Vitals:
        """Never blocks: read by /health."""

    def close(self, why: str = STOPPING) -> None:
        """Stop the loop; what still waits gets an error that says why."""


class Generate(Engine, Protocol):
    """Text in, text out."""

    async def generate(self, messages: list[dict[str, Any]], sampling: Sampling) -> AsyncGenerator[Delta, None]:
        """Accept a chat and return its stream of deltas.

        Raises RequestError before the first delta when the request can't be run. Closing the stream cancels the request and frees
        its slot.
        """


class Predict(Engine, Protocol):
    """Rows in, one probability a class out."""

    labels: tuple[str, ...]

    def parse(self, row: object) -> Floats:
        """One row of the request, checked. Raises RequestError with what is wrong with it."""

    async def predict(self, rows: Floats) -> Floats:
        """Probabilities, one line a row and one column a label."""
