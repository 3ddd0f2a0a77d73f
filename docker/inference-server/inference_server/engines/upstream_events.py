"""What an OpenAI-compatible server says, as our engines say it: its events as deltas, its refusals as errors with a sentence.

After https://platform.openai.com/docs/api-reference/chat-streaming. Nothing in a reply is believed to be of the right type.
"""

import json
import math
import random
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from typing import Any

from inference_server.engines.base import Delta, TokenLogprob, Usage
from inference_server.errors import RequestError

BUSY = frozenset({429, 500, 502, 503, 504})
FIRST_PAUSE = 0.2  # seconds
LONGEST_PAUSE = 5.0
LONGEST_RETRY_AFTER = 3600
MOST_WORDS = 500
SHAPES = (KeyError, TypeError, ValueError, AttributeError, IndexError)


class Trouble(Exception):
    """A try that failed.

    Args:
        error: what the client sees when it was the last one.
        again: whether another try may mend it.
        fault: whether it speaks against the server upstream, as a refusal or a queue that is full does not.
        wait: seconds that upstream asks to wait.
    """

    def __init__(self, error: RequestError, *, again: bool, fault: bool = True, wait: float | None = None) -> None:
        super().__init__(error.message)
        self.error = error
        self.fault = fault
        self._again = again
        self._wait = wait

    def pause(self, attempt: int) -> float | None:
        """Seconds until the next try, or None where that is not worth it: upstream's wish, else exponential backoff with jitter."""
        if not self._again or (self._wait or 0) > LONGEST_PAUSE:
            return None
        backoff: float = (
            FIRST_PAUSE * 2.0 ** (attempt - 1) * random.uniform(0.5, 1.0)
        )  # a crowd must not come back as one
        return min(LONGEST_PAUSE, max(backoff, self._wait or 0))


class Answers:
    """The answers to one prompt, as the events of one reply tell them.

    Args:
        chat: whether they are messages or plain texts.
        n: how many there have to be.
        first: the index that the first of them has here.
    """

    def __init__(self, chat: bool, n: int, first: int) -> None:
        self._n = n
        self._first = first
        self._text, self._logprobs = (_message_text, _message_logprobs) if chat else (_plain_text, _plain_logprobs)
        self._finish: dict[int, str] = {}
        self._pieces = [0] * n
        self._usage: Usage | None = None

    @property
    def usage(self) -> Usage:
        """As counted upstream; without a count its pieces are one, as servers send a piece a token."""
        return self._usage or Usage(0, sum(self._pieces))

    def read(self, data: bytes) -> list[Delta]:
        """The pieces in one event. Raises Trouble."""
        try:
            event = json.loads(data)
            if event.get("error"):
                raise _bad("broke off its answer", "upstream_broke_off")
            said = event.get("usage")
            if said:
                cached = (said.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
                self._usage = Usage(int(said["prompt_tokens"]), int(said.get("completion_tokens") or 0), int(cached))
            return [delta for choice in event.get("choices") or () if (delta := self._delta(choice))]
        except (*SHAPES, RecursionError):
            raise _bad("sent what is no event of OpenAI's protocol", "upstream_garbled") from None

    def last(self, done: bool) -> list[Delta]:
        """The ends of all answers; ``done``: upstream said that there is no more. Raises Trouble when there should be."""
        if not done and len(self._finish) < self._n:
            raise _bad("broke off its answer", "upstream_broke_off")
        given = [k for k in range(self._n) if k in self._finish or self._pieces[k]]
        if not given:
            raise _bad("sent an empty answer", "upstream_empty")
        if len(given) < self._n:
            words = (
                f"The model's server upstream gave {len(given)} of {self._n} answers: it may not know n, ask for one."
            )
            raise Trouble(RequestError(502, words, "upstream_too_few", "n"), again=False, fault=False)
        return [Delta("", self._finish.get(k, "stop"), None, self._first + k) for k in range(self._n)]

    def _delta(self, choice: dict[str, Any]) -> Delta | None:
        index = choice.get("index") or 0
        text = self._text(choice) or ""
        if not isinstance(text, str) or not isinstance(index, int) or not 0 <= index < self._n:
            raise ValueError
        if choice.get("finish_reason"):
            self._finish[index] = "length" if choice["finish_reason"] == "length" else "stop"
        said = choice.get("logprobs")
        logprobs = self._logprobs(said) if said else ()
        if not text and not logprobs:
            return None
        self._pieces[index] += 1
        return Delta(text, None, None, self._first + index, logprobs)


def _message_text(choice: dict[str, Any]) -> Any:
    return (choice.get("delta") or {}).get("content")


def _plain_text(choice: dict[str, Any]) -> Any:
    return choice.get("text")


def _message_logprobs(said: dict[str, Any]) -> tuple[TokenLogprob, ...]:
    def pair(entry: dict[str, Any]) -> tuple[bytes, float]:
        spelt = entry.get("bytes")
        return bytes(spelt) if spelt is not None else entry["token"].encode(), float(entry["logprob"])

    return tuple(
        TokenLogprob(*pair(entry), tuple(pair(rival) for rival in entry.get("top_logprobs") or ()))
        for entry in said.get("content") or ()
    )


def _plain_logprobs(said: dict[str, Any]) -> tuple[TokenLogprob, ...]:
    tokens, values = said.get("tokens") or (), said.get("token_logprobs") or ()
    tops = said.get("top_logprobs") or [None] * len(tokens)
    return tuple(
        TokenLogprob(
            token.encode(), float(value), tuple((rival.encode(), float(its)) for rival, its in (top or {}).items())
        )
        for token, value, top in zip(tokens, values, tops, strict=True)
    )


def _bad(what: str, code: str) -> Trouble:
    return Trouble(RequestError(502, f"The model's server upstream {what}: try again shortly.", code), again=True)


def silent(error: Exception, timeout: bool, connecting: bool) -> Trouble:
    """No answer, or none any more. What was heard and timed out is not asked again: that would double the load of one that is slow."""
    words = f"The model's server upstream {'took too long' if timeout else 'did not answer'} ({type(error).__name__})"
    return Trouble(
        RequestError(504 if timeout else 502, f"{words}: try again shortly.", "upstream_silent", retry_after=1),
        again=connecting or not timeout,
    )


def down(seconds: float) -> RequestError:
    """What a client gets while the breaker is open."""
    return RequestError(
        503,
        "The model's server upstream keeps failing and is left in peace for a moment: try again shortly.",
        "upstream_down",
        retry_after=max(1, math.ceil(seconds)),
    )


def refusal(status: int, body: bytes, retry_after: str, hide: Callable[[str], str]) -> Trouble:
    """A status other than 200. ``hide`` takes out what no client and no log may see."""
    words = hide(_words(body)) or f"status {status}"
    if status in BUSY:
        wait = _seconds(retry_after)
        error = RequestError(
            429 if status == 429 else 503,
            f"The model's server upstream can't answer now ({words}): try again shortly.",
            "upstream_busy",
            retry_after=max(1, math.ceil(wait or 0)),
        )
        return Trouble(error, again=True, fault=status != 429, wait=wait)
    if status in (400, 413, 422):
        error = RequestError(
            413 if status == 413 else 422, f"The model's server upstream says: {words}", "upstream_said"
        )
    else:  # a key, an address or a model that its operator has to set right
        error = RequestError(
            502,
            f"The model's server upstream refuses this server with status {status}: tell its operator.",
            "upstream_refuses",
        )
    return Trouble(error, again=False, fault=False)


def _words(body: bytes) -> str:
    """The sentence of an error in OpenAI's shape, or in those that others made of it."""
    try:
        said = json.loads(body)
        said = said.get("error", said.get("message", said.get("detail")))
        return str(said["message"] if isinstance(said, dict) else said or "")[:MOST_WORDS]
    except (*SHAPES, RecursionError):
        return ""


def _seconds(retry_after: str) -> float | None:
    """Retry-After (RFC 9110, 10.2.3): seconds or a date; None for anything else."""
    try:
        wait = (
            float(retry_after)
            if retry_after.isdecimal()
            else parsedate_to_datetime(retry_after).timestamp() - time.time()
        )
    except (ValueError, TypeError, OverflowError):
        return None
    return min(max(wait, 0.0), LONGEST_RETRY_AFTER)
