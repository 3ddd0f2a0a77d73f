"""/v1/completions, after https://platform.openai.com/docs/api-reference/completions: a text goes on, without a chat template."""

import codecs
from collections.abc import Iterable
from typing import Annotated, Any, ClassVar

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import ConfigDict, Field

from inference_server.contracts.openai.shapes import (
    FINISH,
    INDEX,
    LOGPROBS,
    WHOLE,
    Completion,
    Json,
    Shape,
    answer,
    errors,
    reply,
    text_model,
    token_text,
)
from inference_server.engines.base import Delta, Prompt, TokenLogprob
from inference_server.errors import RequestError
from inference_server.serving import serving

router = APIRouter(prefix="/v1", tags=["openai"])
TOP = 5
DEFAULT_TOKENS = 16
Ids = Annotated[list[Annotated[int, Field(ge=0), WHOLE]], Field(min_length=1)]

CHOICE: Json = {"index": INDEX, "text": {"type": "string"}, "logprobs": LOGPROBS, "finish_reason": FINISH}


class CompletionRequest(Completion):
    """A text to go on with, or several; token ids are taken as they are."""

    model_config = ConfigDict(json_schema_extra={"example": {"model": "tutor", "prompt": "A Docker image is"}})
    unsupported: ClassVar[dict[str, tuple[tuple[Any, ...], str]]] = {
        "suffix": (("",), "leave it out, this model writes at the end of a text only"),
        "best_of": ((1,), "leave it out, ask for n answers with logprobs and choose"),
    }

    prompt: (
        Annotated[str, Field(min_length=1)]
        | Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1)]
        | Ids
        | Annotated[list[Ids], Field(min_length=1)]
    )
    echo: bool | None = False
    logprobs: Annotated[int, Field(ge=0, le=TOP), WHOLE] | None = None

    def prompts(self) -> list[Prompt]:
        """One for each text that is to go on."""
        if isinstance(self.prompt, str) or isinstance(self.prompt[0], int):
            return [self.prompt]
        return list(self.prompt)


class TextShape(Shape):
    """Plain texts; log-probabilities as four lists of equal length."""

    prefix, whole, chunk = "cmpl", "text_completion", "text_completion"

    def __init__(self, answers: int, logprobs: bool, before: list[str]) -> None:
        super().__init__(answers)
        self._logprobs = logprobs
        self._before = before
        self._decoders = [codecs.getincrementaldecoder("utf-8")("replace") for _ in range(answers)]
        self._offsets = [len(text) for text in before]

    def opening(self) -> Iterable[Json]:
        for index, text in enumerate(self._before):
            if text:
                yield {"index": index, "text": text, "logprobs": None, "finish_reason": None}

    def pieces(self, delta: Delta) -> Iterable[Json]:
        yield self._choice(delta.index, delta.text, delta.logprobs, delta.finish)

    def choice(self, index: int, text: str, logprobs: list[TokenLogprob], finish: str | None) -> Json:
        return self._choice(index, self._before[index] + text, logprobs, finish)

    def _choice(self, index: int, text: str, logprobs: Iterable[TokenLogprob], finish: str | None) -> Json:
        lists = self._lists(index, logprobs) if self._logprobs else None
        return {"index": index, "text": text, "logprobs": lists, "finish_reason": finish}

    def _lists(self, index: int, logprobs: Iterable[TokenLogprob]) -> Json:
        lists: Json = {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}
        for each in logprobs:
            drawn = token_text(each.token)
            lists["tokens"].append(drawn)
            lists["token_logprobs"].append(each.logprob)
            lists["top_logprobs"].append(
                {token_text(token): value for token, value in each.top} | {drawn: each.logprob}
            )
            lists["text_offset"].append(self._offsets[index])
            self._offsets[index] += len(self._decoders[index].decode(each.token))
        return lists


@router.post(
    "/completions",
    summary="A text that goes on, whole or as server-sent events",
    responses=reply("text_completion", "choices", CHOICE) | errors(400, 404, 413, 415, 429, 500, 503, 504),
)
async def completions(body: CompletionRequest, request: Request) -> Response:
    """Answer k of prompt p has the index p * n + k. Without max_tokens there are 16, as at OpenAI."""
    settings = serving(request).settings
    body.check(settings)
    if body.echo and body.logprobs is not None:
        raise RequestError(
            400,
            "echo with logprobs would need those of the prompt, which are not kept: leave one out.",
            "unsupported",
            "echo",
        )
    prompts = body.prompts()
    if len(prompts) > settings.max_batch:
        raise RequestError(
            400,
            f"There are {len(prompts)} prompts and this server takes {settings.max_batch}: send fewer.",
            "too_many",
            "prompt",
        )
    tokens = body.max_tokens or min(DEFAULT_TOKENS, settings.max_new_tokens)
    sampling = body.sampling(settings.default_temperature, tokens, body.logprobs)
    model = text_model(body, request)
    before = [model.engine.text_of(prompt) if body.echo else "" for prompt in prompts for _ in range(sampling.n)]
    return await answer(
        body, request, model, prompts, sampling, TextShape(len(before), body.logprobs is not None, before)
    )
