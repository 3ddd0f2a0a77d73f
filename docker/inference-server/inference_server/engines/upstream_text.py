"""A text model that runs elsewhere: any server that speaks OpenAI's protocol, such as Ollama, vLLM or a NIM.

The server in front keeps its contracts, limits, metrics and version names; each prompt becomes one streamed request upstream. What can go
wrong between two servers is dealt with here: connections are pooled, waits have limits, what failed before its first piece is tried again,
and an upstream that keeps failing is left in peace for a while.
"""

import asyncio
import json
import logging
import time
from collections import defaultdict
from collections.abc import AsyncGenerator
from contextlib import suppress
from dataclasses import replace
from typing import Any

import httpx2

from inference_server import tracing
from inference_server.engines import waiting
from inference_server.engines.base import STOPPING, Delta, Prompt, Sampling, Vitals, require_few_tokens
from inference_server.engines.breaker import Breaker
from inference_server.engines.upstream_events import Answers, Trouble, down, refusal, silent
from inference_server.engines.waiting import Line
from inference_server.errors import RequestError
from inference_server.models import ModelSpec
from inference_server.settings import Settings
from inference_server.upstream import CONNECT_SECONDS, UpstreamKey, client_options

log = logging.getLogger("inference_server.engine")
TRIES = 3
LONGEST_EVENT = 1 << 22  # bytes; one with a piece of text has some hundred
LONGEST_REFUSAL = 1 << 16
END_SECONDS = 1.0  # for the end of a reply whose last event is there
ASK_AGAIN_SECONDS = 1.0


class Job(waiting.Job["Ask"]):
    """One request of a client: its prompts upstream."""

    def __init__(self) -> None:
        super().__init__()
        self.traceparent = tracing.current.get()

    def end(self, ask: "Ask", last: list[Delta]) -> None:
        """One prompt has all its answers; the last of all carries what they took together."""
        self.usage = self.usage.plus(ask.answers.usage)
        self.left -= 1
        if not self.left:
            last[-1] = replace(last[-1], usage=self.usage)
        for delta in last:
            self.mailbox.put_nowait(delta)


class Ask:
    """One prompt: what the fair queue orders, and what is asked upstream."""

    def __init__(self, job: Job, prompt: Prompt, body: dict[str, Any], n: int) -> None:
        self.job = job
        self.client = job.client
        self.cost = body["max_tokens"] * n
        self.path = "completions" if isinstance(prompt, str) else "chat/completions"
        self.content = json.dumps(body).encode()
        self._shape = not isinstance(prompt, str), n, len(job.pieces) * n
        self.answers = Answers(*self._shape)
        self.begun = False  # something was passed on, which nobody can unsay
        self.task: asyncio.Task[None] | None = None

    def forget(self) -> None:
        """What a try told that came to nothing."""
        self.answers = Answers(*self._shape)


class UpstreamText:
    """See ``base.Generate``. Its loop is the upstream's, so it is never stuck; while the breaker is open it is away.

    SLOTS requests run upstream at a time; others wait here, in the same fair order as for the models of this server.
    """

    def __init__(self, spec: ModelSpec, settings: Settings) -> None:
        self.batch_sizes: defaultdict[int, int] = defaultdict(int)  # only the upstream knows
        self._model = str(spec.card["upstream_model"])
        self._settings = settings
        self._key = UpstreamKey(settings.upstream_key_file)
        self._client = httpx2.AsyncClient(**client_options(settings), headers={"Accept-Encoding": "identity"})
        self._breaker = Breaker()
        self._watcher: asyncio.Task[None] | None = None
        self._queue: Line[Ask] = Line(settings.max_queue + settings.slots)
        self._running = 0
        self._closed = ""

    async def generate(self, prompts: list[Prompt], sampling: Sampling) -> AsyncGenerator[Delta, None]:
        """See ``base.Generate``. Nothing is sent yet that could fail: the first piece tells."""
        job = Job()
        for prompt in prompts:
            job.pieces.append(Ask(job, prompt, self._body(prompt, sampling), sampling.n))
        job.left = len(job.pieces)
        if self._closed:
            raise RequestError(503, f"The model can't be asked any more: {self._closed}.", "engine_down")
        if self._breaker.open:
            raise down(self._breaker.seconds)
        self._queue.enter(job, self._running)
        self._admit()
        return job.read(self._settings.request_timeout_seconds, lambda: self._leave(job))

    def text_of(self, prompt: Prompt) -> str:
        """See ``base.Generate``."""
        if not isinstance(prompt, str):
            raise _no_ids()
        return prompt

    def vitals(self) -> Vitals:
        """Alive always: a restart of this server would not mend the other one."""
        away = "its server upstream keeps failing" if self._breaker.open else ""
        return Vitals(running=self._running, waiting=len(self._queue), away=away)

    def close(self, why: str = STOPPING) -> None:
        """Nothing runs here; what is open upstream ends with its clients."""
        self._closed = why

    def _body(self, prompt: Prompt, sampling: Sampling) -> dict[str, Any]:
        """The request upstream, with fields that mean something only. Raises RequestError."""
        most = self._settings.max_new_tokens
        require_few_tokens(sampling.max_tokens, most)
        chat = not isinstance(prompt, str)
        if not prompt:
            raise RequestError(
                422, "The prompt is empty: write something.", "empty_prompt", "messages" if chat else "prompt"
            )
        if isinstance(prompt[0], int):
            raise _no_ids()
        body: dict[str, Any] = {
            "model": self._model,
            "messages" if chat else "prompt": prompt,
            "stream": True,
            "stream_options": {"include_usage": True},
            "max_tokens": sampling.max_tokens or min(self._settings.default_new_tokens, most),
            "temperature": sampling.temperature,
        }
        if sampling.logprobs is not None:
            body |= {"logprobs": True, "top_logprobs": sampling.logprobs} if chat else {"logprobs": sampling.logprobs}
        asked: dict[str, tuple[Any, Any]] = {
            "top_p": (sampling.top_p, 1.0),
            "seed": (sampling.seed, None),
            "stop": (list(sampling.stop), []),
            "frequency_penalty": (sampling.frequency_penalty, 0.0),
            "presence_penalty": (sampling.presence_penalty, 0.0),
            "logit_bias": ({str(token): bias for token, bias in sampling.logit_bias}, {}),
            "n": (sampling.n, 1),
        }
        return body | {name: value for name, (value, nothing) in asked.items() if value != nothing}

    def _leave(self, job: Job) -> None:
        """Nobody reads any more: end its requests upstream, whatever they are at."""
        self._queue.drop(job.client, set(job.pieces))
        for ask in job.pieces:
            if ask.task:
                ask.task.cancel()

    def _admit(self) -> None:
        """Begin what there are slots for."""
        while self._running < self._settings.slots and (ask := self._queue.pop()):
            self._running += 1
            ask.task = asyncio.get_running_loop().create_task(self._run(ask))
            ask.task.add_done_callback(lambda _, ask=ask: self._over(ask))  # type: ignore[misc]

    def _over(self, ask: Ask) -> None:
        self._running -= 1
        self._queue.done(ask, ask.answers.usage.completion_tokens)
        self._queue.pace.ended(time.monotonic())
        self._admit()
        if not self._running:
            self._queue.pace.rest()

    async def _run(self, ask: Ask) -> None:
        """One prompt from its turn to its end; what goes wrong goes to the mailbox."""
        try:
            ask.job.end(ask, await self._answer(ask))
        except RequestError as error:
            ask.job.mailbox.put_nowait(error)
        except Exception:
            log.exception("bug while asking upstream")
            ask.job.mailbox.put_nowait(
                RequestError(500, "The model could not be asked; the server's log says why.", "engine_error")
            )

    async def _answer(self, ask: Ask) -> list[Delta]:
        """Ask until there is an answer; again only while nothing of it was passed on. Returns its last pieces. Raises RequestError."""
        attempt = 0
        while True:
            attempt += 1
            if not self._breaker.enter():
                raise down(self._breaker.seconds)
            try:
                last = await self._exchange(ask)
            except Trouble as trouble:
                self._count(trouble)
                pause = trouble.pause(attempt)
                if ask.begun or pause is None or attempt == TRIES or self._breaker.open:
                    raise trouble.error from None
            except BaseException:
                self._breaker.left()
                raise
            else:
                self._breaker.succeeded()
                return last
            await asyncio.sleep(pause)

    def _count(self, trouble: Trouble) -> None:
        """What a failed try says about the upstream."""
        log.warning("upstream", extra={"fields": {"problem": trouble.error.message, "code": trouble.error.code}})
        if not trouble.fault:
            self._breaker.succeeded()
            return
        self._breaker.failed()
        if self._breaker.open and (self._watcher is None or self._watcher.done()):
            self._watcher = asyncio.get_running_loop().create_task(self._watch())

    async def _watch(self) -> None:
        """With the breaker open: ask for the list of models until it comes, so that no client has to find out."""
        log.error("upstream keeps failing and is left in peace")
        while self._breaker.open:
            await asyncio.sleep(max(self._breaker.seconds, ASK_AGAIN_SECONDS))
            with suppress(httpx2.HTTPError):
                reply = await self._client.get("models", headers=self._key.headers(), timeout=CONNECT_SECONDS)
                if reply.status_code < 500 and self._breaker.open:
                    self._breaker.shown()
                    log.info("upstream answers again")

    async def _exchange(self, ask: Ask) -> list[Delta]:
        """One try. Raises Trouble."""
        ask.forget()
        headers = {"Content-Type": "application/json", **self._key.headers()}
        if ask.job.traceparent:
            headers["traceparent"] = ask.job.traceparent
        try:
            async with self._client.stream("POST", ask.path, content=ask.content, headers=headers) as reply:
                if reply.status_code == 200:
                    return ask.answers.last(done=await self._read(reply, ask))
                body = await _beginning(reply)
                raise refusal(reply.status_code, body, reply.headers.get("retry-after", ""), self._key.hide)
        except httpx2.TimeoutException as error:
            raise silent(error, True, isinstance(error, httpx2.ConnectTimeout)) from None
        except httpx2.HTTPError as error:
            raise silent(error, False, isinstance(error, httpx2.ConnectError)) from None

    async def _read(self, reply: httpx2.Response, ask: Ask) -> bool:
        """Pass on what server-sent events say; whether the last of them said that there is no more. Raises Trouble, HTTPError."""
        chunks = reply.aiter_bytes()
        mailbox = ask.job.mailbox
        held = b""
        async for chunk in chunks:
            # Split at line feeds alone: a text may hold other characters that Python takes for ends of lines.
            *lines, held = (held + chunk).split(b"\n")
            for line in lines:
                if not line.startswith(b"data:"):
                    continue
                data = line[5:].strip()
                if data == b"[DONE]":
                    # A connection is used again if its reply was read to the end; one that breaks now takes nothing from the answer.
                    with suppress(TimeoutError, httpx2.HTTPError):
                        async with asyncio.timeout(END_SECONDS):
                            async for _ in chunks:
                                pass
                    return True
                for delta in ask.answers.read(data):
                    if not ask.begun:
                        ask.begun = True
                        self._breaker.succeeded()
                    mailbox.put_nowait(delta)
            if len(held) > LONGEST_EVENT:
                return False
        return False


async def _beginning(reply: httpx2.Response) -> bytes:
    body = b""
    async for chunk in reply.aiter_bytes():
        body += chunk
        if len(body) > LONGEST_REFUSAL:
            break
    return body


def _no_ids() -> RequestError:
    return RequestError(
        422,
        "This model runs on another server, and its tokenizer with it: send the prompt as text, not as token ids.",
        "token_ids",
        "prompt",
    )
