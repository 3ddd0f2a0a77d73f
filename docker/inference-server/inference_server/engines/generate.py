"""The text engine: prompts in tokens, within limits, wait in one fair line for the model's instances."""

import threading
from collections import defaultdict
from collections.abc import AsyncGenerator

from inference_server.engines.base import STOPPING, Delta, Prompt, Sampling, Vitals, require_few_tokens
from inference_server.engines.chat import ChatTokenizer
from inference_server.engines.instance import Instance, SlotModel
from inference_server.engines.prefixes import PrefixCache
from inference_server.engines.sequence import Job, Sequence
from inference_server.engines.waiting import Line
from inference_server.errors import RequestError
from inference_server.settings import Settings


class GenerateEngine:
    """See ``base.Generate``. Several instances of one model share the line; each computes on a thread of its own."""

    def __init__(self, name: str, models: list[SlotModel], tokenizer: ChatTokenizer, settings: Settings) -> None:
        self._tokenizer = tokenizer
        self._settings = settings
        self._context = models[0].context
        self._longest = min(settings.max_prompt_tokens, self._context - 1)
        self._private = bool(settings.api_keys or settings.api_keys_file)
        self._wake = threading.Condition()
        self._queue: Line[Sequence] = Line(settings.max_queue + sum(model.slots for model in models))
        eos = models[0].eos_ids | ({tokenizer.eos_id} if tokenizer.eos_id is not None else set())
        prefixes = PrefixCache(settings.prefix_cache_mb * 1_000_000)
        loads: list[int] = []
        self.instances = [
            Instance(f"{name}-{number}", model, eos, self._queue, self._wake, prefixes, loads, settings.stall_seconds)
            for number, model in enumerate(models)
        ]
        self.batch_sizes = defaultdict(int)
        for instance in self.instances:
            instance.start()

    async def generate(self, prompts: list[Prompt], sampling: Sampling) -> AsyncGenerator[Delta, None]:
        """See ``base.Generate``."""
        job = Job(sampling, private=self._private)
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
        with self._wake:
            if any(instance.closing for instance in self.instances) or not self.vitals().alive:
                raise RequestError(
                    503, "The model's engine is not running; the server will be replaced.", "engine_down"
                )
            self._queue.enter(job, self._running())
            self._wake.notify_all()
        return job.read(self._settings.request_timeout_seconds, lambda: self._leave(job))

    def text_of(self, prompt: Prompt) -> str:
        """See ``base.Generate``."""
        return prompt if isinstance(prompt, str) else self._tokenizer.decode(self._encode(prompt)[0])

    @property
    def batch_sizes(self) -> defaultdict[int, int]:
        """See ``base.Engine``; every instance counts in the same."""
        return self.instances[0].batch_sizes

    @batch_sizes.setter
    def batch_sizes(self, counts: defaultdict[int, int]) -> None:
        for instance in self.instances:
            instance.batch_sizes = counts

    def vitals(self) -> Vitals:
        """As well as the worst instance."""
        why = next((why for instance in self.instances if (why := instance.vitals().why)), "")
        return Vitals(why, self._running(), len(self._queue))

    def close(self, why: str = STOPPING) -> None:
        """See ``base.Engine``."""
        for instance in self.instances:
            instance.ask_to_end(why)
        for instance in self.instances:
            instance.close(why)

    def _running(self) -> int:
        return sum(instance.busy for instance in self.instances)

    def _encode(self, prompt: Prompt) -> tuple[list[int], bool]:
        """(token ids, whether the answer goes on in the middle of a plain text). Raises RequestError."""
        if isinstance(prompt, str):
            return self._tokenizer.encode_text(prompt, self._longest), True
        ids = [item for item in prompt if isinstance(item, int)]
        if prompt and len(ids) == len(prompt):
            if not all(0 <= token < self._tokenizer.vocabulary for token in ids):
                raise self._unknown_token("prompt")
            return ids, True
        return self._tokenizer.encode([item for item in prompt if isinstance(item, dict)], self._longest), False

    def _unknown_token(self, param: str) -> RequestError:
        last = self._tokenizer.vocabulary - 1
        return RequestError(
            422, f"{param} names a token that this model doesn't have: its ids go from 0 to {last}.", "bad_token", param
        )

    def _leave(self, job: Job) -> None:
        """Nobody reads any more: what waits is forgotten here, what runs at the next turn."""
        job.cancelled = True
        with self._wake:
            self._queue.drop(job.client, set(job.pieces))

    def _room(self, prompt: int, wanted: int | None, param: str) -> int:
        """Tokens the answer may have. Raises RequestError when prompt or wish is too long."""
        limit = self._longest
        if prompt > limit:
            tokens = prompt if prompt <= 2 * limit else f"more than {2 * limit}"
            raise RequestError(
                422,
                f"The prompt has {tokens} tokens and this server takes {limit}: shorten it.",
                "context_length_exceeded",
                param,
            )
        if prompt == 0:
            raise RequestError(422, "The prompt is empty: write something.", "empty_prompt", param)
        require_few_tokens(wanted, self._settings.max_new_tokens)
        default = min(self._settings.default_new_tokens, self._settings.max_new_tokens)
        return min(wanted or default, self._context - prompt)
