"""What chat and text completions share: the fields of a request, log-probabilities, usage, and server-sent events."""

import json
import time
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from dataclasses import replace
from typing import Annotated, Any, ClassVar

from fastapi import Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import to_json

from inference_server import traffic
from inference_server.answers import STOPS, WHOLE
from inference_server.contracts.connection import while_connected
from inference_server.contracts.responses import EVENT, Json, answered_as
from inference_server.engines.base import Delta, Prompt, Sampling, TokenLogprob, Usage, require_few_tokens
from inference_server.errors import RequestError
from inference_server.ids import new_id
from inference_server.registry import TextModel
from inference_server.serving import answered_by, serving
from inference_server.settings import Settings

Positive = Annotated[int, Field(ge=1), WHOLE]
TokenId = Annotated[str, Field(pattern="^[0-9]{1,9}$")]


def reply(kind: str, items: str, item: Json, streamed: bool = True) -> dict[int | str, Json]:
    """OpenAPI's 200: an object of this kind with a list of such items and its usage, or, if it can be streamed, events."""
    counts = {"prompt_tokens": {"type": "integer"}, "total_tokens": {"type": "integer"}}
    properties: Json = {
        "object": {"const": kind},
        "model": {"type": "string", "description": "name:version, the one that answered"},
        items: {"type": "array", "items": {"type": "object", "required": list(item), "properties": item}},
        "usage": {"type": "object", "required": list(counts), "properties": counts},
    }
    schemas: dict[str, Json] = {
        "application/json": {"type": "object", "required": list(properties), "properties": properties}
    }
    if streamed:  # the schema of each event
        schemas["text/event-stream"] = EVENT
    return answered_as(schemas)


INDEX: Json = {"type": "integer"}
FINISH: Json = {"enum": ["stop", "length"]}
LOGPROBS: Json = {"type": ["object", "null"]}


class StreamOptions(BaseModel):
    """``include_usage``: one more chunk at the end, with the token counts."""

    model_config = ConfigDict(strict=True)

    include_usage: bool | None = False


class Completion(BaseModel):
    """How text is asked for, whatever it is to follow. What changes nothing (metadata, store …) is accepted."""

    # Strict: "5" is no number and 1 is no truth value, whatever a parser could make of them.
    model_config = ConfigDict(extra="allow", strict=True)
    # Fields that would change the answer, with the values that mean "nothing asked", and what to do instead.
    unsupported: ClassVar[dict[str, tuple[tuple[Any, ...], str]]] = {}

    model: str | None = Field(
        None, max_length=200, description="Name, or name:version; without it the first text model."
    )
    n: Positive | None = Field(1, description="Answers; the prompt is read once for all.")
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    max_tokens: Positive | None = None
    temperature: float | None = Field(None, ge=0, le=2, allow_inf_nan=False)
    top_p: float | None = Field(None, gt=0, le=1, allow_inf_nan=False)
    frequency_penalty: float | None = Field(0, ge=-2, le=2, allow_inf_nan=False)
    presence_penalty: float | None = Field(0, ge=-2, le=2, allow_inf_nan=False)
    logit_bias: dict[TokenId, Annotated[float, Field(ge=-100, le=100, allow_inf_nan=False)]] | None = Field(
        None, max_length=1024, description="Token id to what is added to its logit."
    )
    seed: Annotated[int, WHOLE] | None = None
    stop: Annotated[str, Field(max_length=256)] | list[Annotated[str, Field(min_length=1, max_length=256)]] | None = (
        None
    )

    user: str | None = Field(
        None, description="Keeps one user on one version where traffic is split; so does X-User-Id."
    )
    safety_identifier: str | None = Field(None, description="OpenAI's newer name for the same.")

    def check(self, settings: Settings) -> None:
        """Raise RequestError 400 for a field that is asked for and can't be had."""
        slots, most = settings.slots, settings.max_new_tokens
        for name in ("max_tokens", "max_completion_tokens"):
            require_few_tokens(getattr(self, name, None), most, name, status=400)
        for name, value in (self.model_extra or {}).items():
            harmless, instead = self.unsupported.get(name, ((value,), ""))
            if value is not None and value not in harmless:
                said = json.dumps(value)[:80]
                raise RequestError(400, f"This server does not support {name}={said}: {instead}.", "unsupported", name)
        if isinstance(self.stop, list) and len(self.stop) > STOPS:
            raise RequestError(
                400,
                f"There can be {STOPS} stop strings; this request has {len(self.stop)}.",
                "too_many_stops",
                "stop",
            )
        if self.n and self.n > slots:
            raise RequestError(
                400, f"n is {self.n} and this server gives at most {slots} answers: ask for fewer.", "n_too_large", "n"
            )

    def sampling(self, default_temperature: float, max_tokens: int | None, logprobs: int | None) -> Sampling:
        """As the engine knows it."""
        return Sampling(
            max_tokens=max_tokens,
            temperature=default_temperature if self.temperature is None else self.temperature,
            top_p=1.0 if self.top_p is None else self.top_p,
            seed=self.seed,
            stop=(self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ()),
            frequency_penalty=self.frequency_penalty or 0.0,
            presence_penalty=self.presence_penalty or 0.0,
            logit_bias=tuple((int(token), bias) for token, bias in (self.logit_bias or {}).items()),
            n=self.n or 1,
            logprobs=logprobs,
        )


class Shape:
    """How one route writes answers down: ids, object names and choices. Made for one request, it may count along."""

    prefix: str
    whole: str
    chunk: str

    def __init__(self, answers: int) -> None:
        self.answers = answers

    def opening(self) -> Iterable[Json]:
        """Choices of the first events of a stream."""
        return ()

    def pieces(self, delta: Delta) -> Iterable[Json]:
        """Choices of the events that one delta makes."""
        raise NotImplementedError

    def choice(self, index: int, text: str, logprobs: list[TokenLogprob], finish: str | None) -> Json:
        """One whole answer."""
        raise NotImplementedError


def text_model(body: Completion, request: Request) -> TextModel:
    """The model that answers a request: the named one, in the version its user is on."""
    traffic.body_user(body.safety_identifier or body.user)
    model = serving(request).models.text(body.model)
    answered_by(request, model)
    return model


async def answer(
    body: Completion, request: Request, model: TextModel, prompts: list[Prompt], sampling: Sampling, shape: Shape
) -> Response:
    """Ask the model and reply, whole or as server-sent events; ``model`` in the reply is name:version, the version that answered."""
    stream = model.complete(prompts, sampling if body.stream else replace(sampling, whole=True))
    head = {"id": f"{shape.prefix}-{new_id()}", "created": int(time.time()), "model": model.spec.id}
    if not body.stream:
        return JSONResponse(await while_connected(request, _whole(stream, head, shape, request)))
    # Wait for the first piece: a request that can't be run gets its status code, not a broken stream.
    first = await while_connected(request, anext(stream))
    with_usage = bool(body.stream_options and body.stream_options.include_usage)
    events = _events(first, stream, {**head, "object": shape.chunk}, shape, with_usage, request)
    # X-Accel-Buffering: nginx would otherwise collect the pieces.
    return StreamingResponse(
        events,
        media_type="text/event-stream",
        headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"},
    )


async def _whole(stream: AsyncGenerator[Delta, None], head: Json, shape: Shape, request: Request) -> Json:
    """Every answer in one piece."""
    texts, finishes = [""] * shape.answers, [""] * shape.answers
    logprobs: list[list[TokenLogprob]] = [[] for _ in texts]
    usage = None
    async with aclosing(stream):
        async for delta in stream:
            texts[delta.index] += delta.text
            logprobs[delta.index] += delta.logprobs
            finishes[delta.index] = delta.finish or ""
            usage = delta.usage
    request.state.usage = usage
    choices = [shape.choice(index, *parts) for index, parts in enumerate(zip(texts, logprobs, finishes, strict=True))]
    return {**head, "object": shape.whole, "choices": choices, "usage": _usage(usage)}


async def _events(
    first: Delta, stream: AsyncGenerator[Delta, None], head: Json, shape: Shape, with_usage: bool, request: Request
) -> AsyncGenerator[bytes, None]:
    """Server-sent events: an opening, the pieces, the usage if asked for, [DONE]."""

    def event(choices: list[Json], usage: Usage | None = None) -> bytes:
        chunk = {**head, "choices": choices}
        if with_usage:
            chunk["usage"] = _usage(usage)
        return b"data: " + to_json(chunk) + b"\n\n"

    async with aclosing(stream):
        for choice in shape.opening():
            yield event([choice])
        delta = first
        try:
            while True:
                for choice in shape.pieces(delta):
                    yield event([choice])
                if delta.usage:
                    break
                delta = await anext(stream)
        except RequestError as error:  # too late for a status code: clients look for an error in the stream
            request.state.error_code = error.code
            yield b"data: " + to_json(error.body()) + b"\n\n"
            return
        request.state.usage = delta.usage
        if with_usage:
            yield event([], delta.usage)
        yield b"data: [DONE]\n\n"


def token_text(token: bytes) -> str:
    """A token as text; bytes of a broken character stand as ``\\xe2``."""
    return token.decode("utf-8", "backslashreplace")


def _usage(usage: Usage | None) -> Json | None:
    if usage is None:
        return None
    total = usage.prompt_tokens + usage.completion_tokens
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": total,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }
