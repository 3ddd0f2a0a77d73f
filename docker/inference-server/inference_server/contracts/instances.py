"""What the platforms' contracts share: bodies that hold ``instances``, ``inputs`` with ``parameters``, or a chat."""

from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse, Response
from pydantic import ValidationError

from inference_server.answers import Parameters, invalid, named
from inference_server.contracts import predict
from inference_server.contracts.items import answer_batch, answer_one
from inference_server.contracts.openai.chat import ChatRequest
from inference_server.contracts.openai.chat import chat as answer_chat
from inference_server.contracts.responses import Json
from inference_server.errors import RequestError

PARAMETERS: Json = {"anyOf": [{"$ref": "#/components/schemas/Parameters"}, {"type": "null"}]}
# Which of these inputs are good depends on the model.
BODY: Json = {
    "anyOf": [
        {
            "type": "object",
            "required": ["instances"],
            "properties": {"instances": {"type": "array", "minItems": 1}, "parameters": PARAMETERS},
        },
        {
            "type": "object",
            "required": ["inputs"],
            "properties": {"inputs": {}, "parameters": PARAMETERS, "stream": {"type": ["boolean", "null"]}},
        },
        {"$ref": "#/components/schemas/ChatRequest"},
    ],
    "example": {"instances": [predict.ROW], "parameters": {"model": "digits"}},
}


async def answer_many(request: Request, items: list[Any], parameters: Parameters, field: str) -> list[dict[str, Any]]:
    """One answer an item, each with the model that gave it."""
    model, answers = await answer_batch(request, items, parameters, field)
    return [{**named(model), **answer} for answer in answers]


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
    if not isinstance(body.get("stream"), bool | None):
        raise RequestError(422, "stream is true or false.", "bad_request", "stream")
    if body.get("stream"):
        if not isinstance(inputs, str):
            raise RequestError(422, "Only a text can be streamed: inputs has to be one string.", "bad_inputs", "inputs")
        return await _chat(request, _as_chat(body, defaults))
    if "parameters" in body:
        parameters = parameters_of(body, defaults)
        if several:
            return JSONResponse(
                [_hugging_face(one) for one in await answer_many(request, inputs, parameters, "inputs")]
            )
        return JSONResponse([_hugging_face(await answer_one(request, inputs, parameters))])
    try:
        plain = predict.PredictRequest.model_validate(Parameters.merged(defaults, body))
    except ValidationError as error:
        raise invalid(error) from None
    return JSONResponse(await (predict.batch_predict if several else predict.predict)(plain, request))


def parameters_of(body: dict[str, Any], defaults: dict[str, Any]) -> Parameters:
    """The body's ``parameters``, over those that came beside it. Raises RequestError 422."""
    given = body.get("parameters")
    return Parameters.read(
        Parameters.merged(defaults, given) if isinstance(given, dict) else defaults if given is None else given
    )


def _as_chat(body: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """A text that is to be streamed, as the chat that it is."""
    if "parameters" in body:
        parameters = parameters_of(body, defaults)
    else:
        given = {name: value for name, value in body.items() if name not in ("inputs", "stream")}
        parameters = Parameters.read(Parameters.merged(defaults, given))
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
