"""One copy of a text model: a thread that lets sequences join and leave a running batch, whatever computes the logits."""

import logging
import sys
import threading
import time
from typing import Any, Protocol

from inference_server.engines.base import Delta, Floats
from inference_server.engines.loop import EngineLoop
from inference_server.engines.prefixes import PrefixCache
from inference_server.engines.sequence import Job, Sequence
from inference_server.engines.waiting import Line
from inference_server.errors import RequestError

log = logging.getLogger("inference_server.engine")
# Prompts taken in between two steps: more would let a crowd of newcomers stall those who are being answered.
ADMIT_A_TURN = 4


class SlotModel(Protocol):
    """What computes logits. Slots 0 to n - 1 are busy, so ``step`` gets one token for each of those."""

    slots: int
    context: int
    eos_ids: frozenset[int]
    chunk: int
    """Most tokens of a prompt to give it at a time."""
    state_bytes: int
    """What ``copy`` takes for each token; 0 where it is not to be called."""

    def prefill(self, slot: int, ids: list[int], start: int = 0) -> Floats:
        """Put tokens behind the first ``start`` that lie in ``slot``; logits after the last."""

    def step(self, tokens: list[int]) -> Floats:
        """Logits of each busy slot after one more token."""

    def move(self, source: int, target: int) -> None:
        """Copy one slot over another."""

    def copy(self, slot: int, size: int) -> Any:
        """What the first ``size`` tokens of a slot made."""

    def paste(self, slot: int, state: Any, size: int) -> None:
        """Begin a slot with the first ``size`` tokens of a copied state."""


class Instance(EngineLoop):
    """Continuous batching over any SlotModel: newcomers join between two steps, whoever is done frees its slot at once.

    Args:
        queue: where its work waits, which other instances take from as well.
        wake: guards the queue; notified when something was put in.
        eos: tokens that end an answer.
        prefixes: what earlier prompts began with.
        loads: how many sequences each instance is at, this one from now on too: only the least busy takes more.
    """

    def __init__(
        self,
        name: str,
        model: SlotModel,
        eos: frozenset[int],
        queue: Line[Sequence],
        wake: threading.Condition,
        prefixes: PrefixCache,
        loads: list[int],
        stall_seconds: float,
    ) -> None:
        super().__init__(name, stall_seconds, wake)
        self.model = model
        self.running: list[Sequence] = []
        self._eos = eos
        self._queue = queue
        self._reading: list[Sequence] = []  # long prompts, read one after the other in the last slot; each keeps a slot free to run in
        self._prefixes = prefixes
        self._loads = loads
        self._number = len(loads)
        loads.append(0)
        self._letters: list[tuple[Job, Delta | RequestError]] = []

    def turn(self) -> bool:
        """Drop who left, take in who waits, read on in a long prompt, advance everybody by one token, send the post."""
        for slot in reversed(range(len(self.running))):
            if self.running[slot].job.cancelled:
                self._free(slot)
        self._admit()
        self._read_on()
        if self.running:
            self._advance()
        elif not self._reading:
            self._queue.pace.rest()
        self._loads[self._number] = self.busy
        if self._letters:
            self._send()
        return bool(self.busy)

    @property
    def busy(self) -> int:
        """How many sequences it is at."""
        return len(self.running) + len(self._reading)

    def _admit(self) -> None:
        """A prompt that is short, but for what is known of it, joins at once; a longer one is read bit by bit in between steps."""
        for _ in range(ADMIT_A_TURN):
            sequence = self._next()
            if sequence is None:
                return
            if sequence.job.cancelled:
                self._over(sequence)
                continue
            sequence.cached, sequence.state = self._prefixes.find(sequence.owner, sequence.ids)
            short = len(sequence.ids) - sequence.cached <= self.model.chunk
            sequence.slot = len(self.running) if short else self.model.slots - 1
            if not short:
                self._reading.append(sequence)
            elif (logits := self._read(sequence)) is not None:
                self._begin(sequence, logits)

    def _next(self) -> Sequence | None:
        """Who is next, if there is room and the turn is this instance's."""
        self._loads[self._number] = self.busy
        if not self._queue or len(self.running) >= self._room() or not self._first_choice():
            return None
        with self.wake:
            sequence = self._queue.pop()
            if sequence:
                self._loads[self._number] += 1
                if self._queue:  # the choice may be another's now, who sleeps
                    self.wake.notify_all()
        return sequence

    def _first_choice(self) -> bool:
        """Whether no other instance is less busy. Where several are idle it is the first: its caches are warm from the last request."""
        mine = self._loads[self._number]
        return mine == min(self._loads) and not (mine == 0 and 0 in self._loads[: self._number])

    def _room(self) -> int:
        """How many sequences may run: a slot is left for each prompt that is read."""
        return self.model.slots - len(self._reading)

    def _read_on(self) -> None:
        if not self._reading:
            return
        sequence = self._reading[0]
        if sequence.job.cancelled:
            self._reading.pop(0)
            self._over(sequence)
            return
        logits = self._read(sequence)
        if logits is None or sequence.read == len(sequence.ids):
            self._reading.pop(0)
            if logits is not None:
                self._begin(sequence, logits)

    def _read(self, sequence: Sequence) -> Floats | None:
        """The next chunk of a prompt; the logits after it, or None where it could not be run."""
        try:
            if sequence.state is not None:
                self.model.paste(sequence.slot, sequence.state, sequence.cached)
                sequence.read, sequence.state = sequence.cached, None
            chunk = sequence.ids[sequence.read : sequence.read + self.model.chunk]
            logits = self.model.prefill(sequence.slot, chunk, sequence.read)
        except BaseException as error:  # noqa: BLE001 (_fail raises what is no Exception again)
            self._fail(sequence, error)
            return None
        sequence.read += len(chunk)
        return logits

    def _fail(self, sequence: Sequence, error: BaseException) -> None:
        """Tell a sequence that runs not yet and is in no list any more; what is no Exception goes on, and the loop dies of it."""
        self._over(sequence)
        self._letters.append((sequence.job, _failed()))
        if not isinstance(error, Exception):
            raise error
        log.exception("a prompt could not be run")

    def _begin(self, sequence: Sequence, logits: Floats) -> None:
        """The whole prompt is read: keep what others may begin with too, and let it and its siblings run."""
        slot, next_one = len(self.running), sequence
        try:
            if sequence.slot != slot:
                self.model.move(sequence.slot, slot)
            self._keep(sequence, slot)
            self._join(sequence, logits)
            while sibling := self._sibling(sequence):
                next_one = sibling
                if len(self.running) != slot:
                    self.model.move(slot, len(self.running))
                self._join(sibling, logits)
        except BaseException as error:  # noqa: BLE001 (_fail raises what is no Exception again)
            self._fail(next_one, error)

    def _keep(self, sequence: Sequence, slot: int) -> None:
        """For those who begin alike; where there is no memory for it, they read it themselves."""
        if not self.model.state_bytes or not (size := self._prefixes.wants(sequence.owner, sequence.ids)):
            return
        try:
            state = self.model.copy(slot, size)
        except Exception:
            log.exception("what a prompt begins with could not be kept")
            return
        self._prefixes.keep(sequence.owner, sequence.ids[:size], state, size * self.model.state_bytes)

    def _sibling(self, sequence: Sequence) -> Sequence | None:
        """The next answer to the same prompt, which needs no prefill of its own, while there is a slot for it."""
        if sequence.job.sampling.n == 1 or len(self.running) >= self._room():
            return None
        with self.wake:
            return self._queue.pop_after(sequence, lambda other: other.ids is sequence.ids)

    def _join(self, sequence: Sequence, logits: Floats) -> None:
        """First token after the prompt; then it runs, unless that was all."""
        if self._give(sequence, logits):
            self.running.append(sequence)
        else:
            self._over(sequence)

    def _advance(self) -> None:
        try:
            with self.wake:
                self.batch_sizes[len(self.running)] += 1
            logits = self.model.step([sequence.token for sequence in self.running])
        except Exception:
            log.exception("a step could not be run")
            self._letters += [(sequence.job, _failed()) for sequence in self.running]
            while self.running:
                self._over(self.running.pop())
            return
        best = logits.argmax(-1).tolist()  # in one go: most want just that, and what others do costs far more
        for slot in reversed(range(len(self.running))):
            sequence, token = self.running[slot], best[slot]
            if not sequence.keeps(token, self._eos) and not self._give(sequence, logits[slot], token):
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
        over, last = self.running[slot], len(self.running) - 1
        if slot != last:
            self.model.move(last, slot)
            self.running[slot] = self.running[last]
        self.running.pop()
        self._over(over)

    def _over(self, sequence: Sequence) -> None:
        """Settle its client's account."""
        with self.wake:
            self._queue.done(sequence, sequence.used() if sequence.produced else 0)
            self._queue.pace.ended(time.monotonic())

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
        return bool(self.busy or (self._queue and self._first_choice()))

    def load(self) -> tuple[int, int]:
        return self.busy, len(self._queue)

    def abandon(self, why: str) -> None:
        with self.wake:
            self.closing = True
            self._loads[self._number] = sys.maxsize  # nobody is to leave anything to this one
            left = {sequence.job for sequence in [*self.running, *self._reading, *self._queue.clear()]}
            self.running.clear()
            self._reading.clear()
        self._letters += [(job, RequestError(503, f"The answer was cut off: {why}.", "engine_down")) for job in left]
        self._send()


def _deliver(letters: list[tuple[Job, Delta | RequestError]]) -> None:
    for job, letter in letters:
        job.receive(letter)


def _failed() -> RequestError:
    return RequestError(500, "The model could not compute this answer; the server's log says why.", "engine_error")
