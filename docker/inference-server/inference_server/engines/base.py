"""The two kinds of engine, as every contract sees them. A contract never knows which library computes."""

from collections import defaultdict
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from inference_server.errors import RequestError

Floats = npt.NDArray[np.float32]
Prompt = list[dict[str, Any]] | str | list[int]
"""What a text engine continues: a chat (through the model's template), a plain text, or token ids as they are."""
STOPPING = "the server is stopping"


@dataclass(frozen=True, slots=True)
class Sampling:
    """How one answer is drawn. ``max_tokens`` None: the server's default, cut to what still fits.

    ``frequency_penalty`` and ``presence_penalty`` are taken off the logits of tokens that the answer already holds, once a time they
    stand there and once in all; ``logit_bias`` is added to those of the tokens it names. ``n``: answers a prompt. ``logprobs``: how many
    alternatives to report for each token; 0 is the drawn one alone, None nothing. ``whole``: the answer is read in one
    piece, so an engine may tell its beginning and its end only.
    """

    max_tokens: int | None = None
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    n: int = 1
    logprobs: int | None = None
    whole: bool = False


def require_few_tokens(wanted: int | None, most: int, name: str = "max_tokens", status: int = 422) -> None:
    """Raise RequestError where more tokens are wanted than the server gives."""
    if wanted is not None and wanted > most:
        raise RequestError(
            status,
            f"{name} is {wanted} and this server gives at most {most}: ask for fewer.",
            "max_tokens_too_large",
            name,
        )


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A token as bytes, its natural log-probability under the model itself (before temperature, penalties and bias), and rivals."""

    token: bytes
    logprob: float
    top: tuple[tuple[bytes, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens in and out of one answer; ``cached_tokens`` are those in that an earlier prompt had computed."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0

    def plus(self, other: "Usage") -> "Usage":
        """Both together."""
        return Usage(
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.cached_tokens + other.cached_tokens,
        )


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of an answer. Each answer's last has ``finish`` ("stop" or "length") and, perhaps, no text.

    ``index`` tells several answers apart. The very last piece has ``usage``, with each prompt counted once. ``logprobs`` are those of
    the tokens that ``text`` ends or completes.
    """

    text: str
    finish: str | None = None
    usage: Usage | None = None
    index: int = 0
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class Vitals:
    """How an engine is: ``why`` is empty while its loop moves, ``away`` while what it depends on elsewhere answers."""

    why: str = ""
    running: int = 0
    waiting: int = 0
    away: str = ""

    @property
    def alive(self) -> bool:
        """Whether its loop still moves; where it does not, a restart may help."""
        return not self.why

    @property
    def well(self) -> bool:
        """Whether it can answer."""
        return not self.why and not self.away


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

    async def generate(self, prompts: list[Prompt], sampling: Sampling) -> AsyncGenerator[Delta, None]:
        """Accept prompts and return the stream of all their deltas; answer k of prompt p has the index p * n + k.

        The client it counts for is the one in ``clients.current``. Raises RequestError before the first delta when the request can't
        be run, and at any time when it took longer than it may. Closing the stream cancels the request and frees its slots.
        """

    def text_of(self, prompt: Prompt) -> str:
        """A plain prompt as text, also where it came as token ids. Raises RequestError."""


class Embed(Engine, Protocol):
    """Text in, a vector of length 1 out."""

    dimensions: int

    async def embed(self, texts: list[str]) -> tuple[Floats, int]:
        """(vectors, one line a text and ``dimensions`` columns; tokens read). Raises RequestError."""


class Predict(Engine, Protocol):
    """Rows in, one probability a class out."""

    labels: tuple[str, ...]

    def parse(self, row: object) -> Floats:
        """One row of the request, checked. Raises RequestError with what is wrong with it."""

    async def predict(self, rows: Floats) -> Floats:
        """Probabilities, one line a row and one column a label."""
