"""/v1/chat/completions, after https://platform.openai.com/docs/api-reference/chat."""

from collections.abc import Iterable
from typing import Annotated, Any, ClassVar, Literal

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from inference_server.contracts.openai.shapes import (
    FINISH,
    INDEX,
    LOGPROBS,
    WHOLE,
    Completion,
    Json,
    Positive,
    Shape,
    answer,
    errors,
    reply,
    text_model,
    token_text,
)
from inference_server.engines.base import Delta, TokenLogprob
from inference_server.errors import RequestError
from inference_server.serving import serving

router = APIRouter(prefix="/v1", tags=["openai"])
TOP = 20
CHECK_IT = "leave it out, ask for JSON in the prompt and check what comes"
NO_TOOLS = "leave it out, describe the tools in the prompt and read the call from the text"

MESSAGE: Json = {
    "type": "object",
    "required": ["role", "content"],
    "properties": {"role": {"const": "assistant"}, "content": {"type": "string"}},
}
CHOICE: Json = {"index": INDEX, "message": MESSAGE, "logprobs": LOGPROBS, "finish_reason": FINISH}


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


class ChatRequest(Completion):
    """A chat to go on with."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "model": "tutor",
                "messages": [{"role": "user", "content": "What is a Docker image?"}],
            }
        },
    )
    unsupported: ClassVar[dict[str, tuple[tuple[Any, ...], str]]] = {
        # Holding a grammar needs a constrained decoder, megabytes of it, for a tutor that writes no JSON anyway.
        "response_format": (({"type": "text"},), CHECK_IT),
        "tools": (([],), NO_TOOLS),
        "tool_choice": (("none", "auto"), NO_TOOLS),
        "functions": (([],), NO_TOOLS),
        "function_call": (("none", "auto"), NO_TOOLS),
        "modalities": ((["text"],), "leave it out, the answer is text"),
        "audio": ((), "leave it out, the answer is text"),
        "prediction": ((), "leave it out"),
        "web_search_options": ((), "leave it out, put what was found into a message"),
    }

    messages: list[ChatMessage] = Field(min_length=1, max_length=1000)
    max_completion_tokens: Positive | None = None
    logprobs: bool | None = False
    top_logprobs: Annotated[int, Field(ge=0, le=TOP), WHOLE] | None = None


class ChatShape(Shape):
    """Messages, and deltas of messages."""

    prefix, whole, chunk = "chatcmpl", "chat.completion", "chat.completion.chunk"

    def __init__(self, answers: int, logprobs: bool) -> None:
        super().__init__(answers)
        self._logprobs = logprobs

    def opening(self) -> Iterable[Json]:
        for index in range(self.answers):
            yield _piece(index, {"role": "assistant", "content": ""})

    def pieces(self, delta: Delta) -> Iterable[Json]:
        if delta.text or delta.logprobs:
            yield _piece(delta.index, {"content": delta.text}, self._content(delta.logprobs))
        if delta.finish:
            yield _piece(delta.index, {}, None, delta.finish)

    def choice(self, index: int, text: str, logprobs: list[TokenLogprob], finish: str | None) -> Json:
        message = {"role": "assistant", "content": text, "refusal": None}
        return {"index": index, "message": message, "logprobs": self._content(logprobs), "finish_reason": finish}

    def _content(self, logprobs: Iterable[TokenLogprob]) -> Json | None:
        if not self._logprobs:
            return None
        content = [
            {**_token(each.token, each.logprob), "top_logprobs": [_token(*rival) for rival in each.top]}
            for each in logprobs
        ]
        return {"content": content, "refusal": None}


def _piece(index: int, delta: Json, logprobs: Json | None = None, finish: str | None = None) -> Json:
    return {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish}


def _token(token: bytes, logprob: float) -> Json:
    return {"token": token_text(token), "logprob": logprob, "bytes": list(token)}


@router.post(
    "/chat/completions",
    summary="An answer to a chat, whole or as server-sent events",
    responses=reply("chat.completion", "choices", CHOICE) | errors(400, 404, 413, 415, 429, 500, 503, 504),
)
async def chat(body: ChatRequest, request: Request) -> Response:
    """``stream`` makes events, ``n`` several answers, ``logprobs`` the model's own log-probability of each token."""
    settings = serving(request).settings
    body.check(settings)
    if body.top_logprobs and not body.logprobs:
        raise RequestError(400, "top_logprobs needs logprobs: true beside it.", "bad_request", "top_logprobs")
    logprobs = (body.top_logprobs or 0) if body.logprobs else None
    wanted = body.max_completion_tokens or body.max_tokens
    sampling = body.sampling(settings.default_temperature, wanted, logprobs)
    shape = ChatShape(sampling.n, logprobs is not None)
    model = text_model(body, request)
    return await answer(body, request, model, [[message.plain() for message in body.messages]], sampling, shape)
