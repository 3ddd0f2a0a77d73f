"""What every contract answers, whichever way it was asked: a class with its probabilities, or a text.

A batch is a list of items. An item is a row of numbers, a text, a chat (a list of messages), or an object that holds one of these.
"""

import asyncio
from collections.abc import Iterable
from dataclasses import replace
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from inference_server.engines.base import Floats, Sampling, Usage
from inference_server.errors import RequestError
from inference_server.ids import new_id
from inference_server.models import AnswerKind
from inference_server.registry import ClassModel, TextModel

Model = TextModel | ClassModel
STOPS = 4
TEXT_FIELDS = ("messages", "prompt", "text")
ROLES = ("system", "user", "assistant")
# JSON knows one kind of number: 1.0 is a whole one.
WHOLE = BeforeValidator(lambda value: int(value) if isinstance(value, float) and value.is_integer() else value)


# The platforms' words for the same few things, ours first.
WORDS = {
    "max_tokens": ("max_tokens", "max_new_tokens", "max_output_tokens", "maxOutputTokens"),
    "top_p": ("top_p", "topP"),
    "stop": ("stop", "stop_sequences", "stopSequences"),
}


def _every_word(schema: dict[str, Any]) -> None:
    """Into a JSON schema, which has a field's first name only, all names that the field goes by."""
    for first, *others in WORDS.values():
        other = {**schema["properties"][first], "description": f"Another name of {first}; send one of them."}
        schema["properties"] |= dict.fromkeys(others, other)


class Parameters(BaseModel):
    """What a request may say beside its items. Each platform has its own words for the same few things.

    Nothing else is accepted: a misspelt parameter that is ignored gives a wrong answer that looks right.
    """

    # Strict: "5" is no number and 1 is no truth value, whatever a parser could make of them.
    model_config = ConfigDict(extra="forbid", strict=True, json_schema_extra=_every_word)

    model: str | None = Field(
        None,
        max_length=200,
        description="Name, or name:version; without it the first model that takes such an input.",
    )
    version: Annotated[str, Field(max_length=100)] | Annotated[int, WHOLE] | None = Field(
        None, description="Without it by traffic split, else the highest."
    )
    max_tokens: Annotated[int, Field(ge=1), WHOLE] | None = Field(
        None,
        validation_alias=AliasChoices(*WORDS["max_tokens"]),
    )
    temperature: float | None = Field(None, ge=0, le=2, allow_inf_nan=False)
    top_p: float | None = Field(None, gt=0, le=1, allow_inf_nan=False, validation_alias=AliasChoices(*WORDS["top_p"]))
    seed: Annotated[int, WHOLE] | None = None
    stop: Annotated[str, Field(max_length=256)] | Annotated[list[str], Field(max_length=STOPS)] | None = Field(
        None, validation_alias=AliasChoices(*WORDS["stop"])
    )
    do_sample: bool | None = None
    return_full_text: Literal[False] | None = Field(None, description="Answers come without the prompt.")

    @model_validator(mode="before")
    @classmethod
    def _one_word(cls, value: object) -> object:
        """Of two words for the same, one would be ignored."""
        for words in WORDS.values():
            said = [word for word in words if isinstance(value, dict) and word in value]
            if len(said) > 1:
                raise PydanticCustomError("two_words", f"{' and '.join(said)} mean the same: send one of them")
        return value

    @staticmethod
    def merged(defaults: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
        """Both in one; what ``given`` says, in whichever word, counts more."""
        unsaid = {name: value for name, value in defaults.items() if not given.keys() & set(WORDS.get(name, (name,)))}
        return {**unsaid, **given}

    @classmethod
    def read(cls, value: object, where: str = "parameters") -> "Parameters":
        """From a request's JSON; None counts as empty. Raises RequestError 422 with the first thing that is wrong."""
        try:
            return cls.model_validate({} if value is None else value)
        except ValidationError as error:
            raise invalid(error, where) from None

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
    exact = scores.tolist()
    return {
        "prediction_id": new_id(),
        "predicted_class": model.engine.labels[best],
        "confidence": round(exact[best], 6),
        "probabilities": {label: round(score, 6) for label, score in zip(model.engine.labels, exact, strict=True)},
    }


async def text_answer(model: TextModel, item: object, sampling: Sampling) -> tuple[dict[str, Any], Usage | None]:
    """The whole answer to a text or a chat. Raises RequestError."""
    text = ""
    async for delta in model.chat(_messages(model, item), replace(sampling, whole=True)):
        text += delta.text
        finish, usage = delta.finish, delta.usage
    answer = {
        "prediction_id": new_id(),
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
