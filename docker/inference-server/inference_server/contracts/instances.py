"""What the platforms' contracts share: bodies that hold ``instances``, ``inputs`` with ``parameters``, or a chat."""

from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse, Response
from pydantic import ValidationError

from inference_server.answers import (
    Model,
    Parameters,
    answer_all,
    class_answer,
    invalid,
    kind_of_any,
    named,
    text_answer,
)
from inference_server.contracts import predict
from inference_server.contracts.connection import while_connected
from inference_server.contracts.openai.chat import ChatRequest
from inference_server.contracts.openai.chat import chat as answer_chat
from inference_server.errors import RequestError
from inference_server.registry import ClassModel
from inference_server.serving import answered_by, serving


async def answer_many(request: Request, items: list[Any], parameters: Parameters, field: str) -> list[dict[str, Any]]:
    """One answer an item, in order; a bad item has ``error`` in place of its answer. Raises RequestError for the whole."""
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
    model = pick(request, items, parameters)
    sampling = parameters.sampling(serving(request).settings.default_temperature)
    answers = await while_connected(request, answer_all(model, items, sampling))
    return [{**named(model), **answer} for answer in answers]


async def answer_one(request: Request, item: object, parameters: Parameters) -> dict[str, Any]:
    """The answer to one item. Raises RequestError."""
    model = pick(request, [item], parameters)
    if isinstance(model, ClassModel):
        return {**named(model), **class_answer(model, (await model.classify(model.engine.parse(item)[None]))[0])}
    sampling = parameters.sampling(serving(request).settings.default_temperature)
    answer, request.state.usage = await while_connected(request, text_answer(model, item, sampling))
    return {**named(model), **answer}


def pick(request: Request, items: list[Any], parameters: Parameters) -> Model:
    """The model that is named, or the first that takes this kind of item."""
    version = None if parameters.version is None else str(parameters.version)
    model = serving(request).models.answerer(
        None if parameters.model else kind_of_any(items), parameters.model, version
    )
    answered_by(request, model)
    return model


def instances_of(body: dict[str, Any]) -> list[Any]:
    """The body's ``instances``. Raises 422."""
    found = body["instances"]
    if not isinstance(found, list):
        raise RequestError(422, "instances is a list, with one row or text an entry.", "bad_inputs", "instances")
    return found


async def answer_body(request: Request, body: dict[str, Any], defaults: dict[str, Any]) -> Response:
    """A body without ``instances``: a chat, or ``inputs`` as /predict takes them, or ``inputs`` with ``parameters``.

    ``defaults`` are parameters that came beside the body. Raises RequestError 422 for any other body.
    """
    if "messages" in body:
        return await _chat(request, {**_chat_defaults(defaults), **body})
    if "inputs" not in body:
        raise RequestError(422, "The body has none of: instances, inputs, messages.", "bad_request")
    inputs = body["inputs"]
    several = isinstance(inputs, list) and bool(inputs) and all(isinstance(each, list | str) for each in inputs)
    if body.get("stream"):
        if not isinstance(inputs, str):
            raise RequestError(422, "Only a text can be streamed: inputs has to be one string.", "bad_inputs", "inputs")
        return await _chat(request, _as_chat(body, defaults))
    if "parameters" in body:
        parameters = Parameters.read(_merged(defaults, body["parameters"]))
        if several:
            return JSONResponse(
                [_hugging_face(one) for one in await answer_many(request, inputs, parameters, "inputs")]
            )
        return JSONResponse([_hugging_face(await answer_one(request, inputs, parameters))])
    try:
        plain = predict.PredictRequest.model_validate({**defaults, **body})
    except ValidationError as error:
        raise invalid(error) from None
    return JSONResponse(await (predict.batch_predict if several else predict.predict)(plain, request))


def _merged(defaults: dict[str, Any], parameters: object) -> object:
    """What the request itself says counts more; what is no object is left for ``Parameters`` to refuse."""
    return (
        {**defaults, **parameters} if isinstance(parameters, dict) else defaults if parameters is None else parameters
    )


def _as_chat(body: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """A text that is to be streamed, as the chat that it is."""
    if "parameters" in body:
        given = _merged(defaults, body["parameters"])
    else:
        given = {**defaults, **{name: value for name, value in body.items() if name not in ("inputs", "stream")}}
    parameters = Parameters.read(given)
    sampling = parameters.sampling(0.0)
    asked = {
        "model": parameters.model,
        "max_tokens": sampling.max_tokens,
        "temperature": 0.0 if parameters.do_sample is False else parameters.temperature,
        "top_p": parameters.top_p,
        "seed": parameters.seed,
        "stop": parameters.stop,
    }
    if parameters.model and parameters.version is not None:
        asked["model"] = f"{parameters.model.partition(':')[0]}:{parameters.version}"
    return {"messages": [{"role": "user", "content": body["inputs"]}], "stream": True, **asked}


def _chat_defaults(defaults: dict[str, Any]) -> dict[str, Any]:
    """``model`` and ``version`` as OpenAI's contract writes them, in one word."""
    found = {name: value for name, value in defaults.items() if name != "version"}
    if "model" in found and "version" in defaults and ":" not in found["model"]:
        found["model"] = f"{found['model']}:{defaults['version']}"
    return found


async def _chat(request: Request, body: dict[str, Any]) -> Response:
    """OpenAI's contract under another path: SageMaker and Vertex pass such bodies through."""
    try:
        chat = ChatRequest.model_validate(body)
    except ValidationError as error:
        raise invalid(error) from None
    return await answer_chat(chat, request)


def _hugging_face(answer: dict[str, Any]) -> dict[str, Any]:
    """Who sends ``parameters`` with a text reads ``generated_text``, as from Hugging Face's own containers."""
    if "text" not in answer:
        return answer
    return {"generated_text": answer["text"], **{name: value for name, value in answer.items() if name != "text"}}
