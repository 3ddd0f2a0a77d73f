"""One answer on its way: the tokens it has, the text they make, and the request it belongs to."""

from dataclasses import replace
from typing import Any

from inference_server.engines import waiting
from inference_server.engines.base import Delta, Floats, Sampling, Usage
from inference_server.engines.chat import ChatTokenizer
from inference_server.engines.sampling import Logprobs, Sampler, StopFilter
from inference_server.errors import RequestError

NOTHING = Delta("")  # is told nobody


class Job(waiting.Job["Sequence"]):
    """One request for one or more prompts, each with as many sequences as it wants answers.

    Args:
        private: what is known of its prompts is for this client only.
    """

    def __init__(self, sampling: Sampling, private: bool) -> None:
        super().__init__()
        self.owner = self.client if private else ""
        self.sampling = sampling
        self.cancelled = False

    def ask(self, ids: list[int], limit: int, tokenizer: ChatTokenizer, after: list[int] | None) -> None:
        """Add a prompt."""
        self.usage = Usage(self.usage.prompt_tokens + len(ids), 0)
        for choice in range(self.sampling.n):
            self.pieces.append(Sequence(self, choice, ids, limit, tokenizer, after))
        self.left = len(self.pieces)

    def receive(self, letter: Delta | RequestError) -> None:
        """Put a letter in the mailbox, on the event loop's thread: answers may come from several instances, and the last one counts all."""
        if isinstance(letter, Delta) and letter.usage:
            self.left -= 1
            self.usage = self.usage.plus(letter.usage)
            letter = replace(letter, usage=None if self.left else self.usage)
        self.mailbox.put_nowait(letter)


class Sequence:
    """One answer on its way through the loop."""

    def __init__(
        self, job: Job, choice: int, ids: list[int], limit: int, tokenizer: ChatTokenizer, after: list[int] | None
    ) -> None:
        sampling = job.sampling
        self.job = job
        self.client = job.client
        self.owner = job.owner
        self.index = len(job.pieces)
        self._choice = choice
        self.ids = ids
        self.limit = limit
        self.cost = limit if choice else limit + len(ids)
        self.sampler = Sampler(sampling, choice)
        self.slot = 0
        self.read = 0  # tokens of the prompt that lie in the slot
        self.cached = 0  # those of them that come from an earlier prompt
        self.state: Any = None  # which is this, until it lies in the slot
        self.produced = 0
        self.token = 0
        self._words = tokenizer.words(after)
        self._stops = StopFilter(sampling.stop)
        self._logprobs = None if sampling.logprobs is None else Logprobs(sampling.logprobs, tokenizer.token_bytes)
        self._whole = sampling.whole and self._logprobs is None
        self._begun = False
        self._kept: list[str] = []  # of a whole answer, what came after its first piece
        self._plain = self._whole and self.sampler.plain and not sampling.stop
        self._tokens: list[int] = []  # of a plain one, what is no text yet

    def used(self) -> int:
        """Tokens it really took, of the ``cost`` it might have."""
        return self.cost - self.limit + self.produced

    def keeps(self, token: int, eos_ids: frozenset[int]) -> bool:
        """Count a new token in, if nothing else has to be done about it before the answer ends; ``take`` does the rest."""
        if not (self._plain and self._begun) or self.produced + 1 >= self.limit or token in eos_ids:
            return False
        self.token = token
        self.produced += 1
        self._tokens.append(token)
        return True

    def take(self, token: int, logits: Floats, eos_ids: frozenset[int]) -> Delta:
        """Count a new token in; the delta it makes, the last one if the answer ends here."""
        self.token = token
        if self._tokens:
            self._kept += map(self._words.feed, self._tokens)
            self._tokens.clear()
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
        logprobs = self._logprobs.release(text, everything=flush) if self._logprobs else ()
        return Delta(text, finish, Usage(0, self.produced, 0 if self._choice else self.cached), self.index, logprobs)
