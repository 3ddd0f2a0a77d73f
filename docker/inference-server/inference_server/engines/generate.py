"""The text engine: one thread that lets requests join and leave a running batch, whatever computes the logits."""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator
from typing import Protocol

from inference_server import clients
from inference_server.engines.base import Delta, Floats, Prompt, Sampling, Usage
from inference_server.engines.chat import ChatTokenizer
from inference_server.engines.fair import FairQueue, Pace
from inference_server.engines.loop import EngineLoop
from inference_server.engines.sampling import Logprobs, Sampler, StopFilter
from inference_server.errors import RequestError
from inference_server.settings import Settings

log = logging.getLogger("inference_server.engine")
ADMIT_A_TURN = (
    4  # prompts taken in between two steps: more would let a crowd of newcomers stall those who are being answered
)

NOTHING = Delta("")  # is told nobody


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


class Job:
    """One request: what it asks for, and the mailbox its client reads."""

    def __init__(self, sampling: Sampling) -> None:
        self.sampling = sampling
        self.client = clients.current.get()
        self.cancelled = False
        self.sequences: list[Sequence] = []
        self.left = 0
        self.usage = Usage(0, 0)
        self.aio = asyncio.get_running_loop()
        self.mailbox: asyncio.Queue[Delta | RequestError] = asyncio.Queue()

    def ask(self, ids: list[int], limit: int, tokenizer: ChatTokenizer, after: list[int] | None) -> None:
        """Add a prompt, with as many sequences as it wants answers."""
        self.usage = Usage(self.usage.prompt_tokens + len(ids), 0)
        for choice in range(self.sampling.n):
            self.sequences.append(Sequence(self, choice, ids, limit, tokenizer, after))
        self.left = len(self.sequences)

    def tell(self, letter: Delta | RequestError) -> None:
        """Put something in the mailbox from any thread."""
        try:
            self.aio.call_soon_threadsafe(self.mailbox.put_nowait, letter)
        except RuntimeError:  # that event loop is closed: nobody is left to read
            log.debug("an answer came too late")


class Sequence:
    """One answer on its way through the loop."""

    def __init__(
        self, job: Job, choice: int, ids: list[int], limit: int, tokenizer: ChatTokenizer, after: list[int] | None
    ) -> None:
        sampling = job.sampling
        self.job = job
        self.client = job.client
        self.index = len(job.sequences)
        self.ids = ids
        self.limit = limit
        self.cost = limit if choice else limit + len(ids)
        self.sampler = Sampler(sampling, choice)
        self.produced = 0
        self.token = 0
        self._words = tokenizer.words(after)
        self._stops = StopFilter(sampling.stop)
        self._logprobs = None if sampling.logprobs is None else Logprobs(sampling.logprobs, tokenizer.token_bytes)
        self._whole = sampling.whole and self._logprobs is None
        self._begun = False
        self._kept: list[str] = []  # of a whole answer, what came after its first piece

    def used(self) -> int:
        """Tokens it really took, of the ``cost`` it might have."""
        return self.cost - self.limit + self.produced

    def take(self, token: int, logits: Floats, eos_ids: frozenset[int]) -> Delta:
        """Count a new token in; the delta it makes, the last one if the answer ends here."""
        self.token = token
        if token in eos_ids:
            return self._last("", "stop")
        self.produced += 1
        piece = self._words.feed(token)
        if self._logprobs:
            self._logprobs.add(logits, token, piece)
        text, stopped = self._stops.feed(piece)
        if stopped:
            return self._last(text, "stop", flush=False)
        if self.produced >= self.limit:
            return self._last(text, "length")
        if self._logprobs:
            return Delta(text, None, None, self.index, self._logprobs.release(text))
        if self._whole and self._begun:
            self._kept.append(text)
            return NOTHING
        self._begun = bool(text)
        return Delta(text, None, None, self.index)

    def _last(self, text: str, finish: str, flush: bool = True) -> Delta:
        text = "".join(self._kept) + text + (self._stops.flush() if flush else "")
        job = self.job
        job.left -= 1
        job.usage = Usage(job.usage.prompt_tokens, job.usage.completion_tokens + self.produced)
        logprobs = self._logprobs.release(text, everything=flush) if self._logprobs else ()
        return Delta(text, finish, None if job.left else job.usage, self.index, logprobs)


class GenerateEngine(EngineLoop):
    """Continuous batching over any SlotModel: newcomers join between two steps, whoever is done frees its slot at once."""

    def __init__(self, name: str, model: SlotModel, tokenizer: ChatTokenizer, settings: Settings) -> None:
        super().__init__(name, settings.stall_seconds)
        self._model = model
        self._tokenizer = tokenizer
        self._settings = settings
        self._eos = model.eos_ids | ({tokenizer.eos_id} if tokenizer.eos_id is not None else set())
        self._queue: FairQueue[Sequence] = FairQueue()
        self._pace = Pace()
        self._running: list[Sequence] = []
        self._letters: list[tuple[Job, Delta | RequestError]] = []
        self.start()

    async def generate(self, prompts: list[Prompt], sampling: Sampling) -> AsyncGenerator[Delta, None]:
        """See ``base.Generate``."""
        job = Job(sampling)
        if any(token >= self._tokenizer.vocabulary for token, _ in sampling.logit_bias):
            raise self._unknown_token("logit_bias")
        for prompt in prompts:
            ids, plain = self._encode(prompt)
            job.ask(
                ids,
                self._room(len(ids), sampling.max_tokens, "prompt" if plain else "messages"),
                self._tokenizer,
                ids if plain else None,
            )
        with self.wake:
            if self.closing or not self.vitals().alive:
                raise RequestError(
                    503, "The model's engine is not running; the server will be replaced.", "engine_down"
                )
            self._make_room(job)
            for sequence in job.sequences:
                self._queue.push(sequence)
            self.wake.notify()
        return self._stream(job)

    def text_of(self, prompt: Prompt) -> str:
        """See ``base.Generate``."""
        return prompt if isinstance(prompt, str) else self._tokenizer.decode(self._encode(prompt)[0])

    def _encode(self, prompt: Prompt) -> tuple[list[int], bool]:
        """(token ids, whether the answer goes on in the middle of a plain text). Raises RequestError."""
        if isinstance(prompt, str):
            return self._tokenizer.encode_text(prompt), True
        ids = [item for item in prompt if isinstance(item, int)]
        if prompt and len(ids) == len(prompt):
            if not all(0 <= token < self._tokenizer.vocabulary for token in ids):
                raise self._unknown_token("prompt")
            return ids, True
        return self._tokenizer.encode([item for item in prompt if isinstance(item, dict)]), False

    def _unknown_token(self, param: str) -> RequestError:
        last = self._tokenizer.vocabulary - 1
        return RequestError(
            422, f"{param} names a token that this model doesn't have: its ids go from 0 to {last}.", "bad_token", param
        )

    def _make_room(self, job: Job) -> None:
        """Places for a job's texts, if need be those of the newest job of whoever holds more than that. Raises RequestError 429."""
        wanted = len(job.sequences)
        places = self._settings.max_queue + self._model.slots - len(self._running)
        if wanted > self._settings.max_queue + self._model.slots:
            raise RequestError(
                422, f"This asks for {wanted} texts at once, more than may wait here: ask for fewer.", "too_many_texts"
            )
        while len(self._queue) + wanted > places:
            error = self._full(job.client)
            newest = self._queue.crowder(job.client, wanted)
            if newest is None:
                raise error
            self._queue.drop(newest.client, set(newest.job.sequences))
            newest.job.cancelled = True
            newest.job.tell(self._full(newest.client))

    def _full(self, client: str) -> RequestError:
        seconds = self._pace.seconds(self._queue.ahead(client), time.monotonic())
        return RequestError(
            429,
            f"{len(self._queue)} requests already wait for this model: try again in {seconds} s.",
            "queue_full",
            retry_after=seconds,
        )

    async def _stream(self, job: Job) -> AsyncGenerator[Delta, None]:
        """The mailbox as a stream; leaving it early, for whatever reason, cancels the job."""
        limit = self._settings.request_timeout_seconds
        late = RequestError(
            504, f"The answer took longer than {limit:g} s: ask for fewer tokens, or come back later.", "timeout"
        )
        timer = job.aio.call_later(limit, job.mailbox.put_nowait, late)
        try:
            while True:
                delta = await job.mailbox.get()
                if isinstance(delta, RequestError):
                    raise delta
                yield delta
                if delta.usage:
                    return
        finally:
            timer.cancel()
            job.cancelled = True
            with self.wake:
                self._queue.drop(job.client, set(job.sequences))

    def _room(self, prompt: int, wanted: int | None, param: str) -> int:
        """Tokens the answer may have. Raises RequestError when prompt or wish is too long."""
        limit = min(self._settings.max_prompt_tokens, self._model.context - 1)
        if prompt > limit:
            raise RequestError(
                422,
                f"The prompt has {prompt} tokens and this server takes {limit}: shorten it.",
                "context_length_exceeded",
                param,
            )
        if prompt == 0:
            raise RequestError(422, "The prompt is empty: write something.", "empty_prompt", param)
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
            if self._running[slot].job.cancelled:
                self._free(slot)
        self._admit()
        if self._running:
            self._advance()
        else:
            self._pace.rest()
        self._send()
        return bool(self._running)

    def _admit(self) -> None:
        for _ in range(ADMIT_A_TURN):
            with self.wake:
                sequence = self._queue.pop() if len(self._running) < self._model.slots else None
            if sequence is None:
                return
            if sequence.job.cancelled:
                self._over(sequence)
                continue
            slot = len(self._running)
            try:
                logits = self._model.prefill(slot, sequence.ids)
            except BaseException as error:
                self._over(sequence)
                self._letters.append((sequence.job, _failed()))
                if not isinstance(error, Exception):
                    raise  # the loop dies; this sequence is in no list any more and had to be told here
                log.exception("a prompt could not be run")
                continue
            self._join(sequence, logits)
            while sibling := self._sibling(sequence):
                if len(self._running) != slot:
                    self._model.move(slot, len(self._running))
                self._join(sibling, logits)

    def _sibling(self, sequence: Sequence) -> Sequence | None:
        """The next answer to the same prompt, which needs no prefill of its own, while there is a slot for it."""
        if sequence.job.sampling.n == 1 or len(self._running) >= self._model.slots:
            return None
        with self.wake:
            return self._queue.pop_after(sequence, lambda other: other.ids is sequence.ids)

    def _join(self, sequence: Sequence, logits: Floats) -> None:
        """First token after the prompt; then it runs, unless that was all."""
        if self._give(sequence, logits):
            self._running.append(sequence)
        else:
            self._over(sequence)

    def _advance(self) -> None:
        try:
            self.batch_sizes[len(self._running)] += 1
            logits = self._model.step([sequence.token for sequence in self._running])
        except Exception:
            log.exception("a step could not be run")
            self._letters += [(sequence.job, _failed()) for sequence in self._running]
            while self._running:
                self._over(self._running.pop())
            return
        best = logits.argmax(-1).tolist()  # in one go: most want just that, and what others do costs far more
        for slot in reversed(range(len(self._running))):
            if not self._give(self._running[slot], logits[slot], best[slot]):
                self._free(slot)

    def _give(self, sequence: Sequence, logits: Floats, best: int | None = None) -> bool:
        """Draw the next token of one sequence, ``best`` being the most likely where that is known; False when that was its last."""
        try:
            delta = sequence.take(sequence.sampler.pick(logits, best), logits, self._eos)
        except Exception:
            log.exception("a token could not be drawn")
            self._letters.append((sequence.job, _failed()))
            return False
        if delta.text or delta.finish:
            self._letters.append((sequence.job, delta))
        return delta.finish is None

    def _free(self, slot: int) -> None:
        """Take a sequence out; the last one moves into its place, so that the busy slots stay the first ones."""
        over, last = self._running[slot], len(self._running) - 1
        if slot != last:
            self._model.move(last, slot)
            self._running[slot] = self._running[last]
        self._running.pop()
        self._over(over)

    def _over(self, sequence: Sequence) -> None:
        """Settle its client's account."""
        with self.wake:
            self._queue.done(sequence, sequence.used() if sequence.produced else 0)
            self._pace.ended(time.monotonic())

    def _send(self) -> None:
        """Hand all letters to the event loop in one call: waking it once a token and client would cost more than the model."""
        letters, self._letters = self._letters, []
        for aio in {job.aio for job, _ in letters}:
            own = [(job, letter) for job, letter in letters if job.aio is aio]
            try:
                aio.call_soon_threadsafe(_deliver, own)
            except RuntimeError:  # that event loop is closed: nobody is left to read
                log.debug("an answer came too late")

    def has_work(self) -> bool:
        return bool(self._queue or self._running)

    def load(self) -> tuple[int, int]:
        return len(self._running), len(self._queue)

    def abandon(self, why: str) -> None:
        with self.wake:
            self.closing = True
            left = {sequence.job for sequence in [*self._running, *self._queue.clear()]}
            self._running.clear()
        self._letters += [(job, RequestError(503, f"The answer was cut off: {why}.", "engine_down")) for job in left]
        self._send()


def _deliver(letters: list[tuple[Job, Delta | RequestError]]) -> None:
    for job, letter in letters:
        job.mailbox.put_nowait(letter)


def _failed() -> RequestError:
    return RequestError(500, "The model could not compute this answer; the server's log says why.", "engine_error")
