"""What every contract answers, whichever way it was asked: a class with its probabilities, or a text.

A batch is a list of items. An item is a row of numbers, a text, a chat (a list of messages), or an object that holds one of these.
"""

import asyncio
import uuid
from collections.abc import Iterable
from typing import Any

import numpy as np
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError

from inference_server.engines.base import Floats, Sampling, Usage
from inference_server.errors import RequestError
from inference_server.models import AnswerKind
from inference_server.registry import ClassModel, TextModel

Model = TextModel | ClassModel
TEXT_FIELDS = ("messages", "prompt", "text")
ROLES = ("system", "user", "assistant")


class Parameters(BaseModel):
    """What a request may say beside its items. Each platform has its own words for the same few things.

    Nothing else is accepted: a misspelt parameter that is ignored gives a wrong answer that looks right.
    """

    model_config = ConfigDict(extra="forbid")

    model: str | None = Field(None, max_length=200)
    version: str | int | None = None
    max_tokens: int | None = Field(
        None,
        ge=1,
        validation_alias=AliasChoices("max_tokens", "max_new_tokens", "max_output_tokens", "maxOutputTokens"),
    )
    temperature: float | None = Field(None, ge=0, le=2, allow_inf_nan=False)
    top_p: float | None = Field(None, gt=0, le=1, allow_inf_nan=False, validation_alias=AliasChoices("top_p", "topP"))
    seed: int | None = None
    stop: str | list[str] | None = Field(
        None, max_length=4 * 256, validation_alias=AliasChoices("stop", "stop_sequences", "stopSequences")
    )
    do_sample: bool | None = None
    return_full_text: bool | None = None

    @classmethod
    def read(cls, value: object, where: str = "parameters") -> "Parameters":
        """From a request's JSON; None counts as empty. Raises RequestError 422 with the first thing that is wrong."""
        try:
            found = cls.model_validate({} if value is None else value)
        except ValidationError as error:
            raise invalid(error, where) from None
        if found.return_full_text:
            raise RequestError(
                422, "Answers come without the prompt: leave return_full_text out.", "unsupported", "return_full_text"
            )
        if isinstance(found.stop, list) and len(found.stop) > 4:
            raise RequestError(422, f"There can be 4 stop strings, not {len(found.stop)}.", "too_many_stops", "stop")
        return found

    def sampling(self, default_temperature: float) -> Sampling:
        """As the engine knows it. ``do_sample: false`` is Hugging Face's word for temperature 0."""
        temperature = default_temperature if self.temperature is None else self.temperature
        return Sampling(
            max_tokens=self.max_tokens,
            temperature=0.0 if self.do_sample is False else temperature,
            top_p=1.0 if self.top_p is None else self.top_p,
            seed=self.seed,
            stop=(self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ()),
        )


def invalid(error: ValidationError, where: str = "") -> RequestError:
    """The first thing pydantic found wrong, as a sentence with its place."""
    first = error.errors(include_input=False, include_url=False)[0]
    # ascii: a field's name comes from outside and may hold half a character
    place = ".".join(ascii(part)[1:-1] if isinstance(part, str) else str(part) for part in first["loc"])
    place = f"{where}.{place}" if where and place else where or place
    return RequestError(422, f"{place or 'The body'}: {first['msg']}.", "bad_request", place or None)


def kind_of(item: object) -> AnswerKind | None:
    """Which kind of model takes such an item; None where one can't tell."""
    if isinstance(item, dict):
        if any(name in item for name in TEXT_FIELDS):
            return "generate"
        item = item["inputs"] if "inputs" in item else next((v for v in item.values() if isinstance(v, list)), None)
    if isinstance(item, list) and item and all(isinstance(each, dict) for each in item):
        return "generate"  # messages
    return "generate" if isinstance(item, str) else "predict" if isinstance(item, list) else None


def kind_of_any(items: Iterable[object]) -> AnswerKind | None:
    """Which kind the first item that tells asks for."""
    return next((kind for item in items if (kind := kind_of(item))), None)


def named(model: Model) -> dict[str, str]:
    """What every answer says about who gave it."""
    return {"model": model.spec.name, "version": model.spec.version}


def class_answer(model: ClassModel, scores: Floats) -> dict[str, Any]:
    """One row's answer from its probabilities, shape (labels,)."""
    best = int(scores.argmax())
    return {
        "prediction_id": uuid.uuid4().hex,
        "predicted_class": model.engine.labels[best],
        "confidence": round(float(scores[best]), 6),
        "probabilities": {
            label: round(float(score), 6) for label, score in zip(model.engine.labels, scores, strict=True)
        },
    }


async def text_answer(model: TextModel, item: object, sampling: Sampling) -> tuple[dict[str, Any], Usage | None]:
    """The whole answer to a text or a chat. Raises RequestError."""
    text = ""
    async for delta in model.chat(_messages(model, item), sampling):
        text += delta.text
        finish, usage = delta.finish, delta.usage
    answer = {
        "prediction_id": uuid.uuid4().hex,
        "text": text,
        "finish_reason": finish,
        "usage": {"prompt_tokens": usage.prompt_tokens, "completion_tokens": usage.completion_tokens}
        if usage
        else None,
    }
    return answer, usage


async def answer_all(model: Model, items: list[Any], sampling: Sampling) -> list[dict[str, Any]]:
    """Answers in the order of the items; an item that failed has ``error`` in place of its answer."""
    if isinstance(model, ClassModel):
        return await _classify_all(model, items)
    return list(await asyncio.gather(*(_write_one(model, item, sampling) for item in items)))


async def _classify_all(model: ClassModel, items: list[Any]) -> list[dict[str, Any]]:
    """Good rows in one run of the model, bad rows as errors."""
    answers: list[dict[str, Any]] = [{} for _ in items]
    good: list[tuple[int, Floats]] = []
    for index, item in enumerate(items):
        try:
            good.append((index, model.engine.parse(_unwrap(model, item))))
        except RequestError as error:
            answers[index] = error.body()
    if good:
        scores = await model.classify(np.stack([row for _, row in good]))
        for (index, _), line in zip(good, scores, strict=True):
            answers[index] = class_answer(model, line)
    return answers


async def _write_one(model: TextModel, item: object, sampling: Sampling) -> dict[str, Any]:
    """All texts of a batch are asked for at the same time: the engine batches them."""
    try:
        answer, _ = await text_answer(model, _unwrap(model, item), sampling)
    except RequestError as error:
        return error.body()
    return answer


def _unwrap(model: Model, item: Any) -> Any:
    """What an object holds under ``inputs`` or under the name by which its model calls its input; anything else as it is."""
    if not isinstance(item, dict):
        return item
    own = TEXT_FIELDS if isinstance(model, TextModel) else (model.spec.card.get("input", {}).get("name"),)
    return next((item[name] for name in ("inputs", *own) if name in item), item)


def _messages(model: TextModel, item: object) -> list[dict[str, Any]]:
    """A text or a chat as chat templates know it. Raises RequestError 422."""
    if isinstance(item, str) and item.strip():
        return [{"role": "user", "content": item}]
    if isinstance(item, list) and item and all(_is_message(each) for each in item):
        return [{"role": each["role"], "content": each["content"]} for each in item]
    raise RequestError(
        422,
        f"{model.spec.id} takes a text that is not empty, or a list of messages, each with a role ({', '.join(ROLES)}) and a content.",
        "bad_inputs",
        "inputs",
    )


def _is_message(value: object) -> bool:
    return isinstance(value, dict) and value.get("role") in ROLES and isinstance(value.get("content"), str)


def number(cell: str) -> float | str:
    """A CSV cell as a number, or as it is. Python alone would read 1_0 as ten."""
    try:
        return cell if "_" in cell else float(cell)
    except ValueError:
        return cell
