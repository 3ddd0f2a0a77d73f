"""The Open Inference Protocol's tensors, and what each kind of model takes and gives as such; HTTP and gRPC wrap this.

After https://github.com/kserve/open-inference-protocol (specification/protocol). A classifier takes rows, FP32 [n, …], under its
input's own name and gives ``label`` BYTES [n] and ``probabilities`` FP32 [n, labels]. A text model takes ``prompt`` BYTES [n] and
gives ``text`` BYTES [n] and ``finish_reason`` BYTES [n].
"""

import asyncio
import math
import struct
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from inference_server.answers import Model, Parameters, text_answer
from inference_server.errors import RequestError
from inference_server.registry import ClassModel, TextModel
from inference_server.settings import Settings

NUMBERS: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype("?"),
    **{f"INT{8 * size}": np.dtype(f"<i{size}") for size in (1, 2, 4, 8)},
    **{f"UINT{8 * size}": np.dtype(f"<u{size}") for size in (1, 2, 4, 8)},
    **{f"FP{8 * size}": np.dtype(f"<f{size}") for size in (2, 4, 8)},
}
MOST_DIMENSIONS = 8
ANY_SIZE = -1
Answer = TypeVar("Answer")


@dataclass(slots=True)
class Tensor:
    """A tensor that travels. ``elements`` are in row-major order: an array of numbers, or a list of bytes for BYTES."""

    name: str
    datatype: str
    shape: list[int]
    elements: npt.NDArray[Any] | list[bytes]

    def raw(self) -> bytes:
        """Little-endian; each element of BYTES has its length before it, in four bytes."""
        if isinstance(self.elements, np.ndarray):
            return self.elements.tobytes()
        return b"".join(struct.pack("<I", len(element)) + element for element in self.elements)


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """A tensor that a model takes or gives; a size of -1 is the client's to choose."""

    name: str
    datatype: str
    shape: list[int]


def inputs_of(model: Model) -> list[TensorSpec]:
    """What the model takes."""
    if isinstance(model, ClassModel):
        card = model.spec.card["input"]
        return [TensorSpec(str(card.get("name", "input")), "FP32", [ANY_SIZE, *(int(size) for size in card["shape"])])]
    return [TensorSpec("prompt", "BYTES", [ANY_SIZE])]


def outputs_of(model: Model) -> list[TensorSpec]:
    """What the model gives."""
    if isinstance(model, ClassModel):
        return [
            TensorSpec("label", "BYTES", [ANY_SIZE]),
            TensorSpec("probabilities", "FP32", [ANY_SIZE, len(model.engine.labels)]),
        ]
    return [TensorSpec("text", "BYTES", [ANY_SIZE]), TensorSpec("finish_reason", "BYTES", [ANY_SIZE])]


def platform_of(model: Model) -> str:
    """What computes it, in the protocol's style of names."""
    return {"onnx": "onnxruntime_onnx", "transformers": "pytorch_transformers"}.get(
        model.spec.engine, model.spec.engine
    )


def count(name: str, datatype: str, shape: list[int]) -> int:
    """Number of elements of a tensor. Raises RequestError 400 for a type or shape there can't be."""
    if datatype != "BYTES" and datatype not in NUMBERS:
        known = ", ".join((*NUMBERS, "BYTES"))
        raise RequestError(
            400, f"The input {name[:80]!r} has datatype {datatype[:40]!r}: use one of {known}.", "bad_tensor"
        )
    if not 0 < len(shape) <= MOST_DIMENSIONS or any(size < 0 for size in shape):
        raise RequestError(
            400, f"The input {name[:80]!r} has a shape with no or too many dimensions, or a negative one.", "bad_tensor"
        )
    return math.prod(shape)


def from_raw(name: str, datatype: str, shape: list[int], raw: bytes) -> Tensor:
    """A tensor from its bytes. Raises RequestError 400."""
    wanted = count(name, datatype, shape)
    if datatype == "BYTES":
        elements = []
        at = 0
        while at < len(raw):
            size = int.from_bytes(raw[at : at + 4], "little")
            if at + 4 + size > len(raw):
                raise RequestError(400, f"The bytes of {name[:80]!r} end within an element.", "bad_tensor")
            elements.append(raw[at + 4 : at + 4 + size])
            at += 4 + size
        return checked(name, datatype, shape, elements)
    size = NUMBERS[datatype].itemsize
    if len(raw) != wanted * size:
        raise RequestError(
            400, f"The input {name[:80]!r} has {len(raw)} bytes; its shape takes {wanted * size}.", "bad_tensor"
        )
    return Tensor(name, datatype, shape, np.frombuffer(raw, NUMBERS[datatype]))


def checked(name: str, datatype: str, shape: list[int], elements: npt.NDArray[Any] | list[bytes]) -> Tensor:
    """A tensor with as many elements as its shape promises. Raises RequestError 400."""
    wanted = count(name, datatype, shape)
    if len(elements) != wanted:
        raise RequestError(
            400, f"The input {name[:80]!r} has {len(elements)} elements; its shape takes {wanted}.", "bad_tensor"
        )
    return Tensor(name, datatype, shape, elements)


async def infer(
    model: Model, inputs: list[Tensor], parameters: dict[str, Any], wanted: list[str], settings: Settings
) -> list[Tensor]:
    """The wanted outputs (all, when none is named). Raises RequestError: a tensor has no room for an error of one row."""
    given = outputs_of(model)
    for name in wanted:
        if name not in (spec.name for spec in given):
            known = ", ".join(spec.name for spec in given)
            raise RequestError(400, f"{model.spec.id} has no output {name[:80]!r}; it has {known}.", "bad_output")
    tensor = _the_input(model, inputs, settings)
    if isinstance(model, ClassModel):
        made = await _classify(model, tensor, parameters)
    else:
        made = await _write(model, tensor, parameters, settings)
    by_name = {one.name: one for one in made}
    return [by_name[name] for name in wanted or by_name]


def _the_input(model: Model, inputs: list[Tensor], settings: Settings) -> Tensor:
    """The one input a model has, with as many rows as the server takes at once."""
    spec = inputs_of(model)[0]
    if len(inputs) != 1 or inputs[0].name != spec.name:
        got = ", ".join(repr(tensor.name[:80]) for tensor in inputs[:5]) or "none"
        raise RequestError(
            400,
            f"{model.spec.id} takes one input, {spec.name!r} ({spec.datatype} {spec.shape}); the request has {got}.",
            "bad_tensor",
        )
    tensor = inputs[0]
    rows = tensor.shape[0]
    if rows == 0:
        raise RequestError(400, f"The input {spec.name!r} has no rows: send at least one.", "bad_tensor")
    if rows > settings.max_batch:
        raise RequestError(
            413,
            f"The batch has {rows} rows and this server takes {settings.max_batch}: send it in parts.",
            "batch_too_large",
        )
    return tensor


async def _classify(model: ClassModel, tensor: Tensor, parameters: dict[str, Any]) -> list[Tensor]:
    """Rows to labels and probabilities."""
    if not isinstance(tensor.elements, np.ndarray) or tensor.datatype == "BOOL":
        raise RequestError(400, f"{model.spec.id} takes FP32 and the request has {tensor.datatype}.", "bad_tensor")
    if parameters:
        raise RequestError(
            400,
            f"{model.spec.id} takes no parameters; the request has {ascii(next(iter(parameters)))[:80]}.",
            "bad_request",
        )
    rows = []
    for index, row in enumerate(tensor.elements.reshape(tensor.shape)):
        try:
            rows.append(model.engine.parse(row.tolist()))
        except RequestError as error:
            raise RequestError(400, f"Row {index + 1}: {error.message}", error.code) from None
    scores = await model.classify(np.stack(rows))
    labels = [model.engine.labels[best].encode() for best in scores.argmax(-1)]
    return [
        Tensor("label", "BYTES", [len(rows)], labels),
        Tensor("probabilities", "FP32", list(scores.shape), np.ascontiguousarray(scores, "<f4").reshape(-1)),
    ]


async def _write(model: TextModel, tensor: Tensor, parameters: dict[str, Any], settings: Settings) -> list[Tensor]:
    """Prompts to texts, all at the same time."""
    if not isinstance(tensor.elements, list) or any(size != 1 for size in tensor.shape[1:]):
        raise RequestError(
            400,
            f"{model.spec.id} takes BYTES [n], one prompt a row; the request has {tensor.datatype} {tensor.shape}.",
            "bad_tensor",
        )
    try:
        prompts = [element.decode() for element in tensor.elements]
    except UnicodeDecodeError:
        raise RequestError(400, "A prompt is not UTF-8.", "bad_tensor") from None
    sampling = Parameters.read(parameters).sampling(settings.default_temperature)
    answers = await all_or_none([text_answer(model, prompt, sampling) for prompt in prompts])
    return [
        Tensor("text", "BYTES", tensor.shape, [answer["text"].encode() for answer, _ in answers]),
        Tensor("finish_reason", "BYTES", tensor.shape, [answer["finish_reason"].encode() for answer, _ in answers]),
    ]


async def all_or_none(work: list[Coroutine[Any, Any, Answer]]) -> list[Answer]:
    """Run them at the same time; the first that fails ends the others, and its RequestError says which row it was."""
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        for index, task in enumerate(tasks):
            error = task.exception() if task.done() else None
            if isinstance(error, RequestError):
                raise RequestError(
                    error.status, f"Row {index + 1}: {error.message}", error.code, retry_after=error.retry_after
                )
        return [await task for task in tasks]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
