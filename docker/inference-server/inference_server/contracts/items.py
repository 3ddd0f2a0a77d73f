"""Items to answers, for every contract that takes rows, texts or chats one by one or in batches."""

from typing import Any

from fastapi import Request

from inference_server.answers import Model, Parameters, answer_all, class_answer, kind_of_any, named, text_answer
from inference_server.contracts.connection import while_connected
from inference_server.errors import RequestError
from inference_server.registry import ClassModel
from inference_server.serving import answered_by, serving


async def answer_one(request: Request, item: object, parameters: Parameters) -> dict[str, Any]:
    """The answer to one item. Raises RequestError."""
    model = _pick(request, [item], parameters)
    if isinstance(model, ClassModel):
        return {**named(model), **class_answer(model, (await model.classify(model.engine.parse(item)[None]))[0])}
    sampling = parameters.sampling(serving(request).settings.default_temperature)
    answer, request.state.usage = await while_connected(request, text_answer(model, item, sampling))
    return {**named(model), **answer}


async def answer_batch(
    request: Request, items: list[Any], parameters: Parameters, field: str
) -> tuple[Model, list[dict[str, Any]]]:
    """Who answered, and one answer an item, in order; a bad item has ``error`` in place of its answer.

    Raises RequestError for the whole; ``field`` is what the contract calls the items.
    """
    limit = serving(request).settings.max_batch
    if not items:
        raise RequestError(422, f"{field} holds nothing: send at least one.", "bad_inputs", field)
    if len(items) > limit:
        raise RequestError(
            413,
            f"There are {len(items)} {field} and this server takes {limit}: send them in parts.",
            "batch_too_large",
            field,
        )
    model = _pick(request, items, parameters)
    sampling = parameters.sampling(serving(request).settings.default_temperature)
    return model, await while_connected(request, answer_all(model, items, sampling))


def _pick(request: Request, items: list[Any], parameters: Parameters) -> Model:
    """The model that is named, or the first that takes this kind of item."""
    version = None if parameters.version is None else str(parameters.version)
    kind = None if parameters.model else kind_of_any(items)
    model = serving(request).models.answerer(kind, parameters.model, version)
    answered_by(request, model)
    return model
