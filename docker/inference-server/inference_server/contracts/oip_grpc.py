"""The Open Inference Protocol over gRPC (open_inference.proto), on the event loop that HTTP runs on. Off unless GRPC_PORT is set.

grpclib, in Python, is a sixth of grpcio's size; the messages and the checks of the tensors are the same either way.
"""

import asyncio
import logging
import socket
import time
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError
from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError
from grpclib.server import Server, Stream

from inference_server import __version__, clients, traffic
from inference_server.answers import Model
from inference_server.contracts.open_inference import MESSAGES, SERVICE
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
from inference_server.errors import RequestError, body_too_slow
from inference_server.ids import new_id
from inference_server.serving import Phase, Serving

log = logging.getLogger("inference_server.access")
STATUS = {
    400: Status.INVALID_ARGUMENT,
    401: Status.UNAUTHENTICATED,
    404: Status.NOT_FOUND,
    408: Status.DEADLINE_EXCEEDED,
    413: Status.RESOURCE_EXHAUSTED,
    422: Status.INVALID_ARGUMENT,
    429: Status.RESOURCE_EXHAUSTED,
    500: Status.INTERNAL,
    503: Status.UNAVAILABLE,
    504: Status.DEADLINE_EXCEEDED,
}
# Which field of InferTensorContents holds which datatype, after the protocol.
CONTENTS = {
    "BOOL": "bool_contents",
    **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
    "INT64": "int64_contents",
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents"),
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
PROBES = frozenset({"ServerLive", "ServerReady", "ModelReady"})
OPEN = frozenset({"ServerLive", "ServerReady"})  # what a platform asks without a key
Method = Callable[[Any, dict[str, Any]], Awaitable[Any]]


class OpenInference:
    """The service, as grpclib knows one: a mapping from path to handler."""

    def __init__(self, serving: Serving) -> None:
        self._serving = serving

    def __mapping__(self) -> dict[str, Handler]:
        methods: tuple[Method, ...] = (
            self.ServerLive,
            self.ServerReady,
            self.ModelReady,
            self.ServerMetadata,
            self.ModelMetadata,
            self.ModelInfer,
        )
        return {f"/{SERVICE}/{method.__name__}": self._handler(method) for method in methods}

    def _handler(self, method: Method) -> Handler:
        """One method, with what stands around every request: limits, draining, errors as statuses, a log line."""
        name = method.__name__
        asked, answered = MESSAGES[f"{name}Request"], MESSAGES[f"{name}Response"]

        async def handle(stream: "Stream[Any, Any]") -> None:
            serving = self._serving
            start = time.perf_counter()
            fields: dict[str, Any] = {"request_id": new_id(), "method": "gRPC", "route": f"/{SERVICE}/{name}"}
            status = Status.CANCELLED
            number = serving.begin()
            try:
                headers = {
                    str(key).encode(): str(value).encode("utf-8", "replace")
                    for key, value in (stream.metadata or {}).items()
                }
                self._note_client(stream, headers, fields, name)
                if serving.phase is Phase.DRAINING and name not in PROBES:
                    raise RequestError(503, "The server is stopping: send this to another one.", "draining")
                request = await self._receive(stream, asked)
                await stream.send_message(await method(request, fields))
                status = Status.OK
            except RequestError as error:
                status = STATUS.get(error.status, Status.INVALID_ARGUMENT)
                fields["error"] = error.code
                raise GRPCError(status, error.message) from None
            except Exception:
                status = Status.INTERNAL
                logging.getLogger("inference_server").exception("bug in a request", extra={"fields": fields})
                raise GRPCError(status, "Something broke here; the server's log says what.") from None
            finally:
                serving.end(number)
                fields |= {"status": status.name, "ms": round((time.perf_counter() - start) * 1000, 2)}
                level = logging.DEBUG if name in PROBES and status is Status.OK else logging.INFO
                log.log(level, "request", extra={"fields": fields})

        return Handler(handle, Cardinality.UNARY_UNARY, asked, answered)

    async def _receive(self, stream: "Stream[Any, Any]", kind: Any) -> Any:
        """The request's message, within the server's limits. Raises RequestError."""
        settings = self._serving.settings
        try:
            async with asyncio.timeout(settings.receive_timeout_seconds):
                return await receive(stream, kind, settings.max_body_bytes)
        except TimeoutError:
            raise body_too_slow(settings.receive_timeout_seconds) from None

    def _note_client(
        self, stream: "Stream[Any, Any]", headers: dict[bytes, bytes], fields: dict[str, Any], name: str
    ) -> None:
        """Who asks and for whom it counts, as ``access`` and ``middleware`` do for HTTP. Raises RequestError 401."""
        traffic.user_is(headers.get(b"x-user-id"))
        keys = self._serving.keys
        if keys.wanted and name not in OPEN:
            fields["key"] = keys.owner(headers)
            clients.current.set(fields["key"])
            return
        peer = stream.peer.addr() if stream.peer else None
        given = headers.get(b"x-forwarded-for", b"").decode("latin-1")
        clients.current.set(clients.address(peer[0] if peer else "", [given] if given else [], self._serving.proxies))

    async def ServerLive(self, request: Any, fields: dict[str, Any]) -> Any:
        """As GET /health."""
        loaded = self._serving.loaded
        return MESSAGES["ServerLiveResponse"](live=not (loaded and loaded.unwell()))

    async def ServerReady(self, request: Any, fields: dict[str, Any]) -> Any:
        """As GET /ready."""
        return MESSAGES["ServerReadyResponse"](ready=not self._serving.trouble())

    async def ModelReady(self, request: Any, fields: dict[str, Any]) -> Any:
        """NOT_FOUND for a model that is not loaded."""
        model = self._pick(request.name, request.version)
        return MESSAGES["ModelReadyResponse"](ready=not self._serving.trouble() and model.engine.vitals().well)

    async def ServerMetadata(self, request: Any, fields: dict[str, Any]) -> Any:
        """Name and version; there are no extensions here, because raw tensors are part of the protocol."""
        return MESSAGES["ServerMetadataResponse"](name="inference-server", version=__version__)

    async def ModelMetadata(self, request: Any, fields: dict[str, Any]) -> Any:
        """A model's versions and tensors."""
        model = self._pick(request.name, request.version)
        reply = MESSAGES["ModelMetadataResponse"](name=model.spec.name, platform=platform_of(model))
        reply.versions.extend(self._serving.models.versions(model.spec.name))
        for target, specs in ((reply.inputs, inputs_of(model)), (reply.outputs, outputs_of(model))):
            for spec in specs:
                target.add(name=spec.name, datatype=spec.datatype, shape=spec.shape)
        return reply

    async def ModelInfer(self, request: Any, fields: dict[str, Any]) -> Any:
        """Outputs come raw where the inputs did, else in the fields of their types."""
        model = self._pick(request.model_name, request.model_version)
        fields |= {"model": model.spec.name, "version": model.spec.version}
        raw = list(request.raw_input_contents)
        if raw and len(raw) != len(request.inputs):
            raise RequestError(
                400, f"There are {len(request.inputs)} inputs and {len(raw)} raw contents.", "bad_tensor"
            )
        inputs = [
            from_raw(tensor.name, tensor.datatype, list(tensor.shape), raw[index]) if raw else _typed(tensor)
            for index, tensor in enumerate(request.inputs)
        ]
        parameters = {name: _value(given) for name, given in request.parameters.items()}
        wanted = list(dict.fromkeys(output.name for output in request.outputs))
        made = await infer(model, inputs, parameters, wanted, self._serving.settings)
        reply = MESSAGES["ModelInferResponse"](
            model_name=model.spec.name, model_version=model.spec.version, id=request.id
        )
        for tensor in made:
            output = reply.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
            if raw:
                reply.raw_output_contents.append(tensor.raw())
            else:
                elements = tensor.elements.tolist() if isinstance(tensor.elements, np.ndarray) else tensor.elements
                getattr(output.contents, CONTENTS[tensor.datatype]).extend(elements)
        return reply

    def _pick(self, name: str, version: str) -> Model:
        """The model a request names; an empty version is the server's choice. Raises RequestError."""
        if not name:
            raise RequestError(400, "The request names no model.", "model_not_found")
        return self._serving.models.answerer(None, name, version or None)


async def receive(stream: "Stream[Any, Any]", kind: Any, limit: int) -> Any:
    """The request's message. grpclib would read whatever length is announced, so the announcement is read here. Raises RequestError."""
    source = stream._stream
    try:
        head = await source.recv_data(5)
        if len(head) < 5:
            raise RequestError(400, "The request holds no message.", "bad_message")
        if head[0]:
            raise RequestError(400, "Compressed messages are not read here: send them as they are.", "bad_encoding")
        length = int.from_bytes(head[1:], "big")
        if length > limit:
            raise RequestError(
                413, f"The message is larger than {limit:,} bytes: send less at a time.", "body_too_large"
            )
        return kind.FromString(await source.recv_data(length))
    except AssertionError:
        raise RequestError(400, "The message ends before its announced length.", "bad_message") from None
    except DecodeError:
        raise RequestError(400, f"The message is no {kind.DESCRIPTOR.name}.", "bad_message") from None


def _typed(tensor: Any) -> Tensor:
    """An input from the field of its type. Raises RequestError 400."""
    shape = list(tensor.shape)
    count(tensor.name, tensor.datatype, shape)
    if tensor.datatype not in CONTENTS:
        raise RequestError(400, f"{tensor.datatype} travels in raw_input_contents only.", "bad_tensor")
    elements = list(getattr(tensor.contents, CONTENTS[tensor.datatype]))
    if tensor.datatype == "BYTES":
        return checked(tensor.name, tensor.datatype, shape, elements)
    try:
        return checked(tensor.name, tensor.datatype, shape, np.array(elements, NUMBERS[tensor.datatype]))
    except OverflowError:
        raise RequestError(
            400, f"The contents of {tensor.name[:80]!r} do not fit {tensor.datatype}.", "bad_tensor"
        ) from None


def _value(given: Any) -> Any:
    """A parameter's value, whichever type it came as."""
    chosen = given.WhichOneof("parameter_choice")
    return getattr(given, chosen) if chosen else None


async def start(serving: Serving, listener: socket.socket) -> Server:
    """Answer on an open socket until ``stop``."""
    server = Server([OpenInference(serving)])
    await server.start(sock=listener)
    return server


async def stop(server: Server) -> None:
    """Close the port and cut off what still runs: draining came before."""
    server.close()
    await asyncio.wait_for(server.wait_closed(), timeout=1)
