"""The plain contract: /predict for one input, /batch_predict for many, each item with its own answer or its own error."""

import time
from typing import Annotated, Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue

from inference_server.answers import answer_all, class_answer, named, text_answer
from inference_server.contracts.connection import while_connected
from inference_server.engines.base import Sampling
from inference_server.errors import RequestError
from inference_server.registry import ClassModel, TextModel
from inference_server.serving import answered_by, serving

router = APIRouter(tags=["predict"])
ROW: list[JsonValue] = [
    0,
    0,
    5,
    13,
    9,
    1,
    0,
    0,
    0,
    0,
    13,
    15,
    10,
    15,
    5,
    0,
    0,
    3,
    15,
    2,
    0,
    11,
    8,
    0,
    0,
    4,
    12,
    0,
    0,
    8,
    8,
    0,
]
ROW += [0, 5, 8, 0, 0, 9, 8, 0, 0, 4, 11, 0, 1, 12, 7, 0, 0, 2, 14, 5, 10, 12, 0, 0, 0, 0, 6, 13, 10, 0, 0, 0]


class PredictRequest(BaseModel):
    """``inputs``: for classes a row of numbers, for text a string; in a batch a list of these."""

    model_config = ConfigDict(strict=True, json_schema_extra={"example": {"inputs": ROW, "model": "digits"}})

    inputs: Any
    model: str | None = Field(
        None,
        max_length=200,
        description="Name, or name:version; without it the first model that takes such an input.",
    )
    # JSON writers like to send 2 where "2" is meant.
    version: Annotated[str | None, BeforeValidator(lambda value: str(value) if type(value) is int else value)] = Field(
        None, max_length=100, description="Without it the highest."
    )
    max_tokens: int | None = Field(None, ge=1, description="Text only.")
    temperature: float | None = Field(None, ge=0, le=2, allow_inf_nan=False, description="Text only.")
    seed: int | None = Field(None, description="Text only.")
    stop: list[str] = Field(default_factory=list, max_length=4, description="Text only.")


@router.post("/predict", summary="One input, one answer")
async def predict(body: PredictRequest, request: Request) -> dict[str, Any]:
    """A class with its confidence, or a text. A list that holds one row counts as that row."""
    item = body.inputs
    if isinstance(item, list) and item and all(isinstance(each, list | str) for each in item):
        if len(item) > 1:
            raise RequestError(
                422,
                f"/predict takes one input and got {len(item)}: use /batch_predict.",
                "too_many_inputs",
                "inputs",
            )
        item = item[0]
    model = _model(body, request, item)
    start = time.perf_counter()
    if isinstance(model, ClassModel):
        scores = await model.classify(model.engine.parse(item)[None])
        answer = class_answer(model, scores[0])
    else:
        answer, usage = await while_connected(request, text_answer(model, item, _sampling(body, request)))
        request.state.usage = usage
    return {**named(model), **answer, "inference_ms": _ms(start)}


@router.post("/batch_predict", summary="Many inputs; one that is bad does not spoil the others")
async def batch_predict(body: PredictRequest, request: Request) -> dict[str, Any]:
    """Answers in the order of the inputs; an item that failed has ``error`` in place of its answer."""
    items = body.inputs
    limit = serving(request).settings.max_batch
    if not isinstance(items, list) or not items:
        raise RequestError(
            422, "/batch_predict takes a list of inputs with at least one in it.", "bad_inputs", "inputs"
        )
    if len(items) > limit:
        raise RequestError(
            413,
            f"The batch has {len(items)} items and this server takes {limit}: send it in parts.",
            "batch_too_large",
            "inputs",
        )
    model = _model(body, request, next((item for item in items if isinstance(item, list | str)), None))
    start = time.perf_counter()
    answers = await while_connected(request, answer_all(model, items, _sampling(body, request)))
    failed = sum("error" in answer for answer in answers)
    return {
        **named(model),
        "predictions": [{"index": index, **answer} for index, answer in enumerate(answers)],
        "count": len(answers),
        "failed": failed,
        "inference_ms": _ms(start),
    }


def _model(body: PredictRequest, request: Request, example: object) -> TextModel | ClassModel:
    """The model that is named, or the first that takes this kind of input."""
    registry = serving(request).models
    model = registry.answerer(
        None if body.model else "generate" if isinstance(example, str) else "predict",
        body.model,
        body.version,
    )
    answered_by(request, model)
    return model


def _sampling(body: PredictRequest, request: Request) -> Sampling:
    default = serving(request).settings.default_temperature
    temperature = default if body.temperature is None else body.temperature
    return Sampling(body.max_tokens, temperature, seed=body.seed, stop=tuple(body.stop))


def _ms(start: float) -> float:
    return round((time.perf_counter() - start) * 1000, 3)
