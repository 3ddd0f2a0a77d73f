"""The text engine: one thread that lets requests join and leave a running batch, whatever computes the logits."""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator
from typing import Any, Protocol

from inference_server.engines.base import Delta, Floats, Sampling, Usage
from inference_server.engines.chat import ChatTokenizer
from inference_server.engines.loop import EngineLoop
from inference_server.engines.sampling import Sampler, StopFilter
from inference_server.errors import RequestError
from inference_server.settings import Settings

log = logging.getLogger("inference_server.engine")
ADMIT_A_TURN = (
    4  # prompts taken in between two steps: more would let a crowd of newcomers stall those who are being answered
)


class SlotModel(Protocol):
    """What computes logits. Slots 0 to n - 1 are busy, so ``step`` gets one token for each of those."""

    slots: int
    context: int
    eos_ids: frozenset[int]

    def prefill(self, slot: int, ids: list[int]) -> Floats:
        """Logits after a prompt that now lies in ``slot``."""

    def step(self, tokens: list[int]) -> Floats:
        """Logits of each busy slot after one more token."""

    def move(self, source: int, target: int) -> None:
        """Copy one slot over another."""


class Sequence:
    """One request on its way through the loop, and the mailbox its client reads."""

    def __init__(self, ids: list[int], sampling: Sampling, limit: int, tokenizer: ChatTokenizer) -> None:
        self.ids = ids
        self.limit = limit
        self.sampler = Sampler(sampling)
        self.produced = 0
        self.token = 0
        self.cancelled = False
        self.aio = asyncio.get_running_loop()
        self.mailbox: asyncio.Queue[Delta | RequestError] = asyncio.Queue()
        self._words = tokenizer.words()
        self._stops = StopFilter(sampling.stop)

    def take(self, token: int, eos_ids: frozenset[int]) -> Delta:
        """Count a new token in; the delta it makes, the last one if the answer ends here."""
        self.token = token
        if token in eos_ids:
            return self._last("", "stop")
        self.produced += 1
        text, stopped = self._stops.feed(self._words.feed(token))
        if stopped:
            return self._last(text, "stop", flush=False)
        return self._last(text, "length") if self.produced >= self.limit else Delta(text)

    def _last(self, text: str, finish: str, flush: bool = True) -> Delta:
        held = self._stops.flush() if flush else ""
        return Delta(text + held, finish, Usage(len(self.ids), self.produced))


class GenerateEngine(EngineLoop):
    """Continuous batching over any SlotModel: newcomers join between two steps, whoever is done frees its slot at once."""

    def __init__(self, name: str, model: SlotModel, tokenizer: ChatTokenizer, settings: Settings) -> None:
        super().__init__(name, settings.stall_seconds)
        self._model = model
        self._tokenizer = tokenizer
        self._settings = settings
        self._eos = model.eos_ids | ({tokenizer.eos_id} if tokenizer.eos_id is not None else set())
        self._waiting: deque[Sequence] = deque()
        self._running: list[Sequence] = []
        self._letters: list[tuple[Sequence, Delta | RequestError]] = []
        self.start()

    async def generate(self, messages: list[dict[str, Any]], sampling: Sampling) -> AsyncGenerator[Delta, None]:
        """See ``base.Generate``."""
        ids = self._tokenizer.encode(messages)
        sequence = Sequence(ids, sampling, self._room(len(ids), sampling.max_tokens), self._tokenizer)
        with self.wake:
            if self.closing or not self.vitals().alive:
                raise RequestError(
                    503, "The model's engine is not running; the server will be replaced.", "engine_down"
                )
            if len(self._waiting) >= self._settings.max_queue + self._model.slots - len(self._running):
                raise RequestError(
                    429,
                    f"{len(self._waiting)} requests already wait for this model: try again shortly.",
                    "queue_full",
                    retry_after=1,
                )
            self._waiting.append(sequence)
            self.wake.notify()
        return self._stream(sequence)

    async def _stream(self, sequence: Sequence) -> AsyncGenerator[Delta, None]:
        """The mailbox as a stream; leaving it early, for whatever reason, cancels the sequence."""
        try:
            while True:
                delta = await sequence.mailbox.get()
                if isinstance(delta, RequestError):
                    raise delta
                yield delta
                if delta.finish:
                    return
        finally:
            sequence.cancelled = True

    def _room(self, prompt: int, wanted: int | None) -> int:
        """Tokens the answer may have. Raises RequestError when prompt or wish is too long."""
        limit = min(self._settings.max_prompt_tokens, self._model.context - 1)
        if prompt > limit:
            raise RequestError(
                422,
                f"The prompt has {prompt} tokens and this server takes {limit}: shorten it.",
                "context_length_exceeded",
                "messages",
            )
        if prompt == 0:
            raise RequestError(422, "The prompt is empty: write something.", "empty_prompt", "messages")
        if wanted is not None and wanted > self._settings.max_new_tokens:
            raise RequestError(
                422,
                f"max_tokens is {wanted} and this server gives at most {self._settings.max_new_tokens}: ask for fewer.",
                "max_tokens_too_large",
                "max_tokens",
            )
        default = min(self._settings.default_new_tokens, self._settings.max_new_tokens)
        return min(wanted or default, self._model.context - prompt)

    # What follows runs on the loop's own thread.

    def turn(self) -> bool:
        """Drop who left, take in who waits, advance everybody by one token, send the post."""
        for slot in reversed(range(len(self._running))):
            if self._running[slot].cancelled:
                self._free(slot)
        self._admit()
        if self._running:
            self._advance()
        self._send()
        return bool(self._running)

    def _admit(self) -> None:
        for _ in range(ADMIT_A_TURN):
            with self.wake:
                if not self._waiting or len(self._running) >= self._model.slots:
                    return
                sequence = self._waiting.popleft()
            if sequence.cancelled:
                continue
            try:
                logits = self._model.prefill(len(self._running), sequence.ids)
            except BaseException as error:
                self._letters.append((sequence, _failed()))
                if not isinstance(error, Exception):
                    raise  # the loop dies; this sequence is in no list any more and had to be told here
                log.exception("a prompt could not be run")
                continue
            if self._give(sequence, logits):
                self._running.append(sequence)

    def _advance(self) -> None:
        try:
            self.batch_sizes[len(self._running)] += 1
            logits = self._model.step([sequence.token for sequence in self._running])
        except Exception:
            log.exception("a step could not be run")
            self._letters += [(sequence, _failed()) for sequence in self._running]
            self._running.clear()
            return
        for slot in reversed(range(len(self._running))):
            if not self._give(self._running[slot], logits[slot]):
                self._free(slot)

    def _give(self, sequence: Sequence, logits: Floats) -> bool:
        """Draw the next token of one sequence; False when that was its last."""
        try:
            delta = sequence.take(sequence.sampler.pick(logits), self._eos)
        except Exception:
            log.exception("a token could not be drawn")
            self._letters.append((sequence, _failed()))
            return False
        if delta.text or delta.finish:
            self._letters.append((sequence, delta))
        return delta.finish is None

    def _free(self, slot: int) -> None:
        """Take a sequence out; the last one moves into its place, so that the busy slots stay the first ones."""
        last = len(self._running) - 1
        if slot != last:
            self._model.move(last, slot)
            self._running[slot] = self._running[last]
        self._running.pop()

    def _send(self) -> None:
        """Hand all letters to the event loop in one call: waking it once a token and client would cost more than the model."""
        letters, self._letters = self._letters, []
        for aio in {sequence.aio for sequence, _ in letters}:
            own = [(sequence, letter) for sequence, letter in letters if sequence.aio is aio]
            try:
                aio.call_soon_threadsafe(_deliver, own)
            except RuntimeError:  # that event loop is closed: nobody is left to read
                log.debug("an answer came too late")

    def has_work(self) -> bool:
        return bool(self._waiting or self._running)

    def load(self) -> tuple[int, int]:
        return len(self._running), len(self._waiting)

    def abandon(self, why: str) -> None:
        with self.wake:
            self.closing = True
            left = [*self._running, *self._waiting]
            self._running.clear()
            self._waiting.clear()
        self._letters += [
            (sequence, RequestError(503, f"The answer was cut off: {why}.", "engine_down")) for sequence in left
        ]
        self._send()


def _deliver(letters: list[tuple[Sequence, Delta | RequestError]]) -> None:
    for sequence, letter in letters:
        sequence.mailbox.put_nowait(letter)


def _failed() -> RequestError:
    return RequestError(500, "The model could not compute this answer; the server's log says why.", "engine_error")
