"""OpenAI's contract: /v1/models and /v1/chat/completions, whole or streamed.

After https://platform.openai.com/docs/api-reference/chat: what this server can't do is refused with 400, never silently ignored, if it
would change the answer.
"""

import json
import time
import uuid
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Literal

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from inference_server import traffic
from inference_server.contracts.connection import while_connected
from inference_server.engines.base import Delta, Sampling, Usage
from inference_server.errors import RequestError
from inference_server.serving import answered_by, serving

router = APIRouter(prefix="/v1", tags=["openai"])
# Fields that would change the answer, with the values that mean "nothing asked".
UNSUPPORTED: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "logit_bias": ({},),
    "response_format": ({"type": "text"},),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "audio": (),
}


class Part(BaseModel):
    """A piece of a message; text is the only kind there is here."""

    type: Literal["text"]
    text: str


class ChatMessage(BaseModel):
    """One turn. ``developer`` is OpenAI's newer word for ``system``."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[Part]

    def plain(self) -> dict[str, Any]:
        """As chat templates know it."""
        content = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return {"role": "system" if self.role == "developer" else self.role, "content": content}


class StreamOptions(BaseModel):
    """``include_usage``: one more chunk at the end, with the token counts."""

    include_usage: bool = False


class ChatRequest(BaseModel):
    """The fields that matter here; others are looked at in ``UNSUPPORTED``, and what changes nothing (metadata, store …) is accepted."""

    model_config = ConfigDict(
        extra="allow",
        json_schema_extra={
            "example": {
                "model": "tutor",
                "messages": [{"role": "user", "content": "What is a Docker image?"}],
            }
        },
    )

    messages: list[ChatMessage] = Field(min_length=1, max_length=1000)
    model: str | None = Field(
        None, max_length=200, description="Name, or name:version; without it the first text model."
    )
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=2, allow_inf_nan=False)
    top_p: float | None = Field(None, gt=0, le=1, allow_inf_nan=False)
    seed: int | None = None
    stop: str | list[str] | None = Field(None, max_length=4 * 256)
    user: str | None = Field(
        None, description="Keeps one user on one version where traffic is split; so does X-User-Id."
    )
    safety_identifier: str | None = Field(None, description="OpenAI's newer name for the same.")

    def check(self) -> None:
        """Raise RequestError 400 for a field that is asked for and can't be had."""
        for name, value in (self.model_extra or {}).items():
            if name in UNSUPPORTED and value is not None and value not in UNSUPPORTED[name]:
                raise RequestError(
                    400,
                    f"This server does not support {name}={json.dumps(value)[:80]}: leave it out.",
                    "unsupported",
                    name,
                )
        if isinstance(self.stop, list) and len(self.stop) > 4:
            raise RequestError(
                400,
                f"There can be 4 stop strings; this request has {len(self.stop)}.",
                "too_many_stops",
                "stop",
            )

    def sampling(self, default_temperature: float) -> Sampling:
        """As the engine knows it."""
        stops = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())
        return Sampling(
            max_tokens=self.max_completion_tokens or self.max_tokens,
            temperature=default_temperature if self.temperature is None else self.temperature,
            top_p=1.0 if self.top_p is None else self.top_p,
            seed=self.seed,
            stop=stops,
        )


@router.get("/models", summary="Text models, each by name and by name:version")
async def models(request: Request) -> dict[str, Any]:
    """What can stand in a request's ``model``."""
    registry = serving(request).models
    listed: list[dict[str, Any]] = []
    for model in registry.models:
        if model.spec.kind == "generate":
            entry = {
                "object": "model",
                "created": int(model.spec.folder.stat().st_mtime),
                "owned_by": "inference-server",
            }
            names = [model.spec.name, model.spec.id] if registry.is_default(model) else [model.spec.id]
            listed += [{"id": name, **entry, "version": model.spec.version} for name in names]
    return {"object": "list", "data": listed}


@router.get("/models/{model_id}", summary="One text model")
async def one_model(model_id: str, request: Request) -> dict[str, Any]:
    """The entry of /v1/models with this id."""
    for entry in (await models(request))["data"]:
        if entry["id"] == model_id:
            return dict(entry)
    serving(request).models.text(model_id)  # says what is loaded
    raise RequestError(404, f"The model {model_id!r} is not loaded.", "model_not_found", "model")


@router.post("/chat/completions", summary="An answer to a chat, whole or as server-sent events")
async def chat(body: ChatRequest, request: Request) -> Response:
    """``model`` in the reply is name:version, the version that answered."""
    body.check()
    state = serving(request)
    traffic.body_user(body.safety_identifier or body.user)
    model = state.models.text(body.model)
    answered_by(request, model)
    stream = model.chat(
        [message.plain() for message in body.messages], body.sampling(state.settings.default_temperature)
    )
    head = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": model.spec.id}
    if not body.stream:
        return JSONResponse(await while_connected(request, _whole(stream, head, request)))
    # Wait for the first piece: a request that can't be run gets its status code, not a broken stream.
    first = await while_connected(request, anext(stream))
    with_usage = bool(body.stream_options and body.stream_options.include_usage)
    events = _events(first, stream, {**head, "object": "chat.completion.chunk"}, with_usage, request)
    # X-Accel-Buffering: nginx would otherwise collect the pieces.
    return StreamingResponse(
        events,
        media_type="text/event-stream",
        headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"},
    )


async def _whole(stream: AsyncGenerator[Delta, None], head: dict[str, Any], request: Request) -> dict[str, Any]:
    """The answer in one piece."""
    text = ""
    async with aclosing(stream):
        async for delta in stream:
            text += delta.text
            finish, usage = delta.finish, delta.usage
    request.state.usage = usage
    message = {"role": "assistant", "content": text, "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish}
    return {**head, "object": "chat.completion", "choices": [choice], "usage": _usage(usage)}


async def _events(
    first: Delta,
    stream: AsyncGenerator[Delta, None],
    head: dict[str, Any],
    with_usage: bool,
    request: Request,
) -> AsyncGenerator[bytes, None]:
    """Server-sent events: the role, the pieces, the reason for the end, the usage if asked for, [DONE]."""

    def event(choices: list[dict[str, Any]], usage: Usage | None = None) -> bytes:
        chunk = {**head, "choices": choices}
        if with_usage:
            chunk["usage"] = _usage(usage)
        return b"data: " + json.dumps(chunk, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"

    def piece(delta: dict[str, Any], finish: str | None = None) -> bytes:
        return event([{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}])

    async with aclosing(stream):
        yield piece({"role": "assistant", "content": ""})
        delta = first
        try:
            while True:
                if delta.text:
                    yield piece({"content": delta.text})
                if delta.finish:
                    break
                delta = await anext(stream)
        except RequestError as error:  # too late for a status code: clients look for an error in the stream
            request.state.error_code = error.code
            yield b"data: " + json.dumps(error.body()).encode() + b"\n\n"
            return
        request.state.usage = delta.usage
        yield piece({}, delta.finish)
        if with_usage:
            yield event([], delta.usage)
        yield b"data: [DONE]\n\n"


def _usage(usage: Usage | None) -> dict[str, int] | None:
    if usage is None:
        return None
    total = usage.prompt_tokens + usage.completion_tokens
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": total,
    }


def error_status(path: str, status: int) -> int:
    """OpenAI answers a malformed request with 400 where the plain contract says 422."""
    return 400 if status == 422 and path.startswith("/v1/") else status
