"""The Open Inference Protocol, version 2, over HTTP; with the binary tensor data extension, which its clients use by default.

After https://github.com/kserve/open-inference-protocol (inference_rest.md, and extension_binary_data.md of Triton). Errors are
``{"error": "sentence"}``.
"""

import json
from dataclasses import asdict
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from inference_server import __version__
from inference_server.answers import WHOLE, invalid
from inference_server.contracts import media
from inference_server.contracts.connection import while_connected
from inference_server.contracts.predict import ROW
from inference_server.contracts.responses import UNWELL, Json, answered_as
from inference_server.contracts.tensors import (
    NUMBERS,
    Tensor,
    checked,
    count,
    from_raw,
    infer,
    inputs_of,
    outputs_of,
    platform_of,
)
from inference_server.errors import RequestError
from inference_server.serving import answered_by, serving

router = APIRouter(prefix="/v2", tags=["open inference protocol"])
HEADER_LENGTH = "Inference-Header-Content-Length"
EXTENSIONS = ["binary_tensor_data"]
LARGEST = 2**63 - 1
EXAMPLE: Json = {"inputs": [{"name": "pixels", "datatype": "FP32", "shape": [1, len(ROW)], "data": ROW}]}
ASKED = {
    "required": True,
    "content": {
        "application/json": {"schema": {"$ref": "#/components/schemas/InferRequest"}},
        "application/octet-stream": {},  # the same, with bytes after it
    },
}
OUTPUT: Json = {
    "name": {"type": "string"},
    "datatype": {"type": "string"},
    "shape": {"type": "array", "items": {"type": "integer"}},
}
OUTPUTS: Json = {"type": "array", "items": {"type": "object", "required": list(OUTPUT), "properties": OUTPUT}}
ANSWER: Json = {"model_name": {"type": "string"}, "model_version": {"type": "string"}, "outputs": OUTPUTS}
ANSWERED = answered_as(
    {
        "application/json": {"type": "object", "required": list(ANSWER), "properties": ANSWER},
        "application/octet-stream": {},
    }
)


class InputTensor(BaseModel):
    """An input: ``data`` here, or ``parameters.binary_data_size`` bytes after the JSON."""

    model_config = ConfigDict(strict=True)

    name: str = Field(max_length=200)
    datatype: str = Field(max_length=40)
    shape: list[Annotated[int, Field(ge=0, le=LARGEST), WHOLE]] = Field(max_length=16)
    parameters: dict[str, Any] = Field(default_factory=dict)
    data: Any = None


class OutputTensor(BaseModel):
    """An output that is asked for; ``parameters.binary_data`` true: as bytes."""

    model_config = ConfigDict(strict=True)

    name: str = Field(max_length=200)
    parameters: dict[str, Any] = Field(default_factory=dict)


class InferRequest(BaseModel):
    """``outputs`` empty: all. ``parameters.binary_data_output`` true: all as bytes."""

    model_config = ConfigDict(strict=True, json_schema_extra={"example": EXAMPLE})

    id: Annotated[str, Field(max_length=200)] | None = None
    parameters: dict[str, Any] | None = None
    inputs: list[InputTensor] = Field(max_length=100)
    outputs: list[OutputTensor] = Field(default_factory=list, max_length=100)


@router.get("", summary="The server and its extensions")
async def server_metadata() -> dict[str, Any]:
    """Name, version, extensions."""
    return {"name": "inference-server", "version": __version__, "extensions": EXTENSIONS}


@router.get("/health/live", summary="As /health", responses=UNWELL)
async def live(request: Request) -> JSONResponse:
    """200 while every engine moves."""
    state = serving(request)
    well = not (state.loaded and state.loaded.unwell())
    return JSONResponse({"live": well}, 200 if well else 503)


@router.get("/health/ready", summary="As /ready", responses=UNWELL)
async def ready(request: Request) -> JSONResponse:
    """200 when work may be sent."""
    well = not serving(request).trouble()
    return JSONResponse({"ready": well}, 200 if well else 503)


@router.get("/models/{name}", summary="A model's versions and tensors")
async def model_metadata(request: Request, name: str) -> dict[str, Any]:
    """The tensors of the version that would answer."""
    return _metadata(request, name)


@router.get("/models/{name}/versions/{version}", summary="One version's tensors")
async def version_metadata(request: Request, name: str, version: str) -> dict[str, Any]:
    """Its own, and the names of all versions."""
    return _metadata(request, name, version)


def _metadata(request: Request, name: str, version: str | None = None) -> dict[str, Any]:
    models = serving(request).models
    model = models.answerer(None, name, version)
    return {
        "name": model.spec.name,
        "versions": models.versions(model.spec.name),
        "platform": platform_of(model),
        "inputs": [asdict(spec) for spec in inputs_of(model)],
        "outputs": [asdict(spec) for spec in outputs_of(model)],
    }


@router.get("/models/{name}/ready", summary="Whether a model may be sent work", responses=UNWELL)
async def model_ready(request: Request, name: str) -> JSONResponse:
    """404 when it is not loaded, 503 when its engine is unwell."""
    return _ready(request, name)


@router.get("/models/{name}/versions/{version}/ready", summary="Whether a version may be sent work", responses=UNWELL)
async def version_ready(request: Request, name: str, version: str) -> JSONResponse:
    """The same, of one version."""
    return _ready(request, name, version)


def _ready(request: Request, name: str, version: str | None = None) -> JSONResponse:
    state = serving(request)
    model = state.models.answerer(None, name, version)
    well = not state.trouble() and model.engine.vitals().well
    return JSONResponse({"name": model.spec.name, "ready": well}, 200 if well else 503)


@router.post(
    "/models/{name}/infer",
    summary="Tensors in, tensors out",
    openapi_extra={"requestBody": ASKED},
    responses=ANSWERED,
)
async def model_infer(request: Request, name: str) -> Response:
    """Inputs as JSON or as bytes after it, each output in the form that is asked for."""
    return await _infer(request, name)


@router.post(
    "/models/{name}/versions/{version}/infer",
    summary="The same, of one version",
    openapi_extra={"requestBody": ASKED},
    responses=ANSWERED,
)
async def version_infer(request: Request, name: str, version: str) -> Response:
    """Inputs and outputs as above."""
    return await _infer(request, name, version)


async def _infer(request: Request, name: str, version: str | None = None) -> Response:
    state = serving(request)
    model = state.models.answerer(None, name, version)
    answered_by(request, model)
    if request.headers.get("content-encoding", "identity") != "identity":
        raise RequestError(415, "Compressed bodies are not read here: send it as it is.", "bad_encoding")
    header, binary = _split(request, await request.body())
    try:
        asked = InferRequest.model_validate(media.parsed(header))
    except ValidationError as error:
        raise invalid(error) from None
    inputs = _tensors(asked.inputs, binary)
    parameters = asked.parameters or {}
    all_binary = parameters.pop("binary_data_output", False) is True
    as_bytes = {output.name: output.parameters.get("binary_data", all_binary) is True for output in asked.outputs}
    work = infer(model, inputs, parameters, list(as_bytes), state.settings)
    made = await while_connected(request, work)
    reply: dict[str, Any] = {"model_name": model.spec.name, "model_version": model.spec.version}
    if asked.id is not None:
        reply["id"] = asked.id
    tail = b""
    reply["outputs"] = []
    for tensor in made:
        head = {"name": tensor.name, "datatype": tensor.datatype, "shape": tensor.shape}
        if as_bytes.get(tensor.name, all_binary):
            raw = tensor.raw()
            tail += raw
            reply["outputs"].append({**head, "parameters": {"binary_data_size": len(raw)}})
        else:
            reply["outputs"].append({**head, "data": _as_json(tensor)})
    if not tail:
        return JSONResponse(reply)
    front = json.dumps(reply, separators=(",", ":")).encode()
    return Response(front + tail, media_type="application/octet-stream", headers={HEADER_LENGTH: str(len(front))})


def _split(request: Request, body: bytes) -> tuple[bytes, bytes]:
    """The JSON and the bytes after it. Raises RequestError 400."""
    text = request.headers.get(HEADER_LENGTH)
    if text is None:
        return body, b""
    if not text.isdecimal() or len(text) > 18 or int(text) > len(body):
        raise RequestError(400, f"{HEADER_LENGTH} is not a length within the body of {len(body)} bytes.", "bad_length")
    return body[: int(text)], body[int(text) :]


def _tensors(asked: list[InputTensor], binary: bytes) -> list[Tensor]:
    """Each input with its elements; the bytes lie in the order of the inputs that have some. Raises RequestError 400."""
    found = []
    at = 0
    for tensor in asked:
        size = tensor.parameters.get("binary_data_size")
        if size is None:
            found.append(_from_json(tensor))
            continue
        if type(size) is not int or not 0 <= size <= len(binary) - at:
            raise RequestError(
                400, f"binary_data_size of {tensor.name[:80]!r} is more than the body holds.", "bad_length"
            )
        if tensor.data is not None:
            raise RequestError(
                400, f"{tensor.name[:80]!r} has both data and binary_data_size: choose one.", "bad_tensor"
            )
        found.append(from_raw(tensor.name, tensor.datatype, tensor.shape, binary[at : at + size]))
        at += size
    if at != len(binary):
        raise RequestError(400, f"The body has {len(binary) - at} bytes that belong to no input.", "bad_length")
    return found


def _from_json(tensor: InputTensor) -> Tensor:
    """Elements from JSON, flat or nested as the shape is. Raises RequestError 400."""
    if not isinstance(tensor.data, list):
        raise RequestError(400, f"The input {tensor.name[:80]!r} has no list of data.", "bad_tensor")
    count(tensor.name, tensor.datatype, tensor.shape)
    flat = tensor.data
    while flat and all(isinstance(part, list) for part in flat):
        flat = [element for part in flat for element in part]
    if tensor.datatype == "BYTES":
        if not all(isinstance(element, str) for element in flat):
            raise RequestError(400, f"The data of {tensor.name[:80]!r} are not all strings.", "bad_tensor")
        try:
            return checked(tensor.name, tensor.datatype, tensor.shape, [element.encode() for element in flat])
        except UnicodeEncodeError:
            raise RequestError(400, f"A string of {tensor.name[:80]!r} holds half a character.", "bad_tensor") from None
    if not all(type(element) in (int, float, bool) for element in flat):
        raise RequestError(400, f"The data of {tensor.name[:80]!r} are not all numbers.", "bad_tensor")
    try:
        with np.errstate(over="ignore"):  # what is too large becomes infinite, and is refused as such
            elements = np.array(flat, NUMBERS[tensor.datatype])
    except (OverflowError, ValueError):
        raise RequestError(
            400, f"The data of {tensor.name[:80]!r} do not fit {tensor.datatype}.", "bad_tensor"
        ) from None
    return checked(tensor.name, tensor.datatype, tensor.shape, elements)


def _as_json(tensor: Tensor) -> list[Any]:
    if isinstance(tensor.elements, np.ndarray):
        numbers: list[Any] = tensor.elements.tolist()
        return numbers
    return [element.decode() for element in tensor.elements]
