"""The plain contract: /predict for one input, /batch_predict for many, each item with its own answer or its own error."""

import time
from typing import Any

from fastapi import APIRouter, Request
from pydantic import ConfigDict, Field, JsonValue

from inference_server.answers import Parameters, named
from inference_server.contracts.items import answer_batch, answer_one
from inference_server.errors import RequestError

router = APIRouter(tags=["predict"])
ZERO = (
    "0 0 5 13 9 1 0 0 0 0 13 15 10 15 5 0 0 3 15 2 0 11 8 0 0 4 12 0 0 8 8 0 "
    "0 5 8 0 0 9 8 0 0 4 11 0 1 12 7 0 0 2 14 5 10 12 0 0 0 0 6 13 10 0 0 0"
)
ROW: list[JsonValue] = [int(shade) for shade in ZERO.split()]  # the digit as an example


class PredictRequest(Parameters):
    """``inputs``: for classes a row of numbers, for text a string or a chat; in a batch a list of these."""

    model_config = ConfigDict(extra="ignore")

    inputs: Any = Field(examples=[ROW])


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
    start = time.perf_counter()
    return {**await answer_one(request, item, body), "inference_ms": _ms(start)}


@router.post("/batch_predict", summary="Many inputs; one that is bad does not spoil the others")
async def batch_predict(body: PredictRequest, request: Request) -> dict[str, Any]:
    """Answers in the order of the inputs; an item that failed has ``error`` in place of its answer."""
    if not isinstance(body.inputs, list):
        raise RequestError(422, "/batch_predict takes a list of inputs.", "bad_inputs", "inputs")
    start = time.perf_counter()
    model, answers = await answer_batch(request, body.inputs, body, "inputs")
    failed = sum("error" in answer for answer in answers)
    return {
        **named(model),
        "predictions": [{"index": index, **answer} for index, answer in enumerate(answers)],
        "count": len(answers),
        "failed": failed,
        "inference_ms": _ms(start),
    }


def _ms(start: float) -> float:
    return round((time.perf_counter() - start) * 1000, 3)
