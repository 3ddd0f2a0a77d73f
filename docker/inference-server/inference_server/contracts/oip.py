"""The Open Inference Protocol, version 2, over HTTP; with the binary tensor data extension, which its clients use by default.

After https://github.com/kserve/open-inference-protocol (inference_rest.md, and extension_binary_data.md of Triton). Errors are
``{"error": "sentence"}``.
"""

import json
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, BeforeValidator, Field, ValidationError

from inference_server import __version__
from inference_server.answers import Model, invalid
from inference_server.contracts import media
from inference_server.contracts.connection import while_connected
from inference_server.contracts.tensors import (
    NUMBERS,
    Tensor,
    TensorSpec,
    checked,
    count,
    from_raw,
    infer,
    inputs_of,
    outputs_of,
)
from inference_server.errors import RequestError
from inference_server.serving import answered_by, serving

router = APIRouter(prefix="/v2", tags=["open inference protocol"])
HEADER_LENGTH = "Inference-Header-Content-Length"
EXTENSIONS = ["binary_tensor_data"]
LARGEST = 2**63 - 1


class InputTensor(BaseModel):
    """An input: ``data`` here, or ``parameters.binary_data_size`` bytes after the JSON."""

    name: str = Field(max_length=200)
    datatype: str = Field(max_length=40)
    shape: list[Annotated[int, Field(ge=0, le=LARGEST)]] = Field(max_length=16)
    parameters: dict[str, Any] = Field(default_factory=dict)
    data: Any = None


class OutputTensor(BaseModel):
    """An output that is asked for; ``parameters.binary_data`` true: as bytes."""

    name: str = Field(max_length=200)
    parameters: dict[str, Any] = Field(default_factory=dict)


class InferRequest(BaseModel):
    """``outputs`` empty: all. ``parameters.binary_data_output`` true: all as bytes."""

    id: Annotated[str | None, Field(max_length=200)] = None
    parameters: Annotated[dict[str, Any], BeforeValidator(lambda value: {} if value is None else value)] = Field(
        default_factory=dict
    )
    inputs: list[InputTensor] = Field(max_length=100)
    outputs: list[OutputTensor] = Field(default_factory=list, max_length=100)


@router.get("", summary="The server and its extensions")
async def server_metadata() -> dict[str, Any]:
    """Name, version, extensions."""
    return {"name": "inference-server", "version": __version__, "extensions": EXTENSIONS}


@router.get("/health/live", summary="As /health")
async def live(request: Request) -> JSONResponse:
    """200 while every engine moves."""
    state = serving(request)
    well = not (state.loaded and state.loaded.unwell())
    return JSONResponse({"live": well}, 200 if well else 503)


@router.get("/health/ready", summary="As /ready")
async def ready(request: Request) -> JSONResponse:
    """200 when work may be sent."""
    well = not serving(request).trouble()
    return JSONResponse({"ready": well}, 200 if well else 503)


@router.get("/models/{name}", summary="A model's versions and tensors")
@router.get("/models/{name}/versions/{version}", summary="One version's tensors")
async def model_metadata(request: Request, name: str, version: str | None = None) -> dict[str, Any]:
    """Without a version: of the one that would answer."""
    model = serving(request).models.answerer(None, name, version)
    return {
        "name": model.spec.name,
        "versions": versions_of(request, model),
        "platform": platform_of(model),
        "inputs": [_spec(spec) for spec in inputs_of(model)],
        "outputs": [_spec(spec) for spec in outputs_of(model)],
    }


@router.get("/models/{name}/ready", summary="Whether a model may be sent work")
@router.get("/models/{name}/versions/{version}/ready", summary="Whether a version may be sent work")
async def model_ready(request: Request, name: str, version: str | None = None) -> JSONResponse:
    """404 when it is not loaded, 503 when its engine is unwell."""
    state = serving(request)
    model = state.models.answerer(None, name, version)
    well = not state.trouble() and model.engine.vitals().alive
    return JSONResponse({"name": model.spec.name, "ready": well}, 200 if well else 503)


BODY = {
    "required": True,
    "content": {"application/json": {"schema": InferRequest.model_json_schema()}, "application/octet-stream": {}},
}


@router.post("/models/{name}/infer", summary="Tensors in, tensors out", openapi_extra={"requestBody": BODY})
@router.post(
    "/models/{name}/versions/{version}/infer", summary="The same, of one version", openapi_extra={"requestBody": BODY}
)
async def model_infer(request: Request, name: str, version: str | None = None) -> Response:
    """Inputs as JSON or as bytes after it, each output in the form that is asked for."""
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
    all_binary = asked.parameters.pop("binary_data_output", False) is True
    as_bytes = {output.name: output.parameters.get("binary_data", all_binary) is True for output in asked.outputs}
    work = infer(model, inputs, asked.parameters, list(as_bytes), state.settings)
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


def versions_of(request: Request, model: Model) -> list[str]:
    """Every loaded version of a model."""
    return [other.spec.version for other in serving(request).models.models if other.spec.name == model.spec.name]


def platform_of(model: Model) -> str:
    """What computes it, in the protocol's style of names."""
    return {"onnx": "onnxruntime_onnx", "transformers": "pytorch_transformers"}.get(
        model.spec.engine, model.spec.engine
    )


def _spec(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "datatype": spec.datatype, "shape": spec.shape}


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
