"""Around every request: an id, a span, a log line, metrics, and limits on its body. Plain ASGI, outside FastAPI."""

import asyncio
import json
import logging
import re
import secrets
import time
from collections.abc import Mapping

from opentelemetry.trace import Span, StatusCode
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rag_service import calls
from rag_service.errors import RequestError
from rag_service.metrics import Metrics
from rag_service.tracing import Tracing, outgoing, trace_id

log = logging.getLogger("rag_service.access")
REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")
PROBES = ("/health", "/ready", "/metrics")
CLIENT_GONE = 499  # nginx's number for a client that left before its answer


class RequestContext:
    """Request id and trace in and out, one span, one log line and the HTTP metrics a request; probes are in no trace."""

    def __init__(self, app: ASGIApp, metrics: Metrics, tracing: Tracing) -> None:
        self._app = app
        self._metrics = metrics
        self._tracing = tracing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        given = headers.get("x-request-id", "")
        request_id = given if REQUEST_ID.fullmatch(given) else secrets.token_hex(16)
        calls.request_id.set(request_id)
        fields: dict[str, object] = {"request_id": request_id}
        if scope["path"] in PROBES:
            await self._answer(scope, receive, send, fields, None)
            return
        with self._tracing.request(scope["method"], headers) as span:
            fields["trace_id"] = trace_id(span)
            await self._answer(scope, receive, send, fields, span)

    async def _answer(
        self, scope: Scope, receive: Receive, send: Send, fields: dict[str, object], span: Span | None
    ) -> None:
        start = time.perf_counter()
        state = scope.setdefault("state", {})
        back = [(b"x-request-id", str(fields["request_id"]).encode())]
        back += [
            (name.encode(), value.encode()) for name, value in outgoing().items() if span and name == "traceparent"
        ]
        status = CLIENT_GONE

        async def send_on(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": [*message["headers"], *back]}
            await send(message)

        try:
            await self._app(scope, receive, send_on)
        except Exception:
            logging.getLogger("rag_service").exception("bug in a request", extra={"fields": fields})
        finally:
            route = getattr(
                scope.get("route"), "path", "none"
            )  # its pattern: paths from outside would be endless series
            method = scope["method"] if route != "none" else "none"
            seconds = time.perf_counter() - start
            self._metrics.http_requests.labels(method, route, str(status)).inc()
            self._metrics.http_seconds.labels(route, str(status)).observe(seconds)
            fields |= {"method": scope["method"], "route": route, "status": status, "ms": round(seconds * 1000, 2)}
            if "stages" in state:
                fields |= {f"{name}_ms": round(took * 1000, 2) for name, took in state["stages"].seconds.items()}
            fields |= state.get("facts", {})
            if "error_code" in state:
                fields["error"] = state["error_code"]
            if span:
                _describe(span, fields)
            level = logging.DEBUG if route in PROBES and status == 200 else logging.INFO
            log.log(level, "request", extra={"fields": fields})


# A log line's fields by their names in OpenTelemetry's semantic conventions.
CONVENTIONS = {
    "method": "http.request.method",
    "route": "http.route",
    "status": "http.response.status_code",
    "error": "error.type",
    "answered_by": "rag.answered_by",
    "cached": "rag.cached",
    "request_id": "http.request.header.x-request-id",
}


def _describe(span: Span, fields: Mapping[str, object]) -> None:
    span.update_name(f"{fields['method']} {fields['route']}")
    for key, name in CONVENTIONS.items():
        if isinstance(value := fields.get(key), str | int | bool):
            span.set_attribute(name, value)
    if isinstance(status := fields["status"], int) and status >= 500:
        span.set_status(StatusCode.ERROR)


class BodyLimit:
    """Reads the body before anything else does: up to MAX_BODY_BYTES, else 413, and for TIMEOUT_SECONDS, else 408."""

    def __init__(self, app: ASGIApp, limit: int, seconds: float) -> None:
        self._app = app
        self._limit = limit
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD", "OPTIONS"):
            await self._app(scope, receive, send)
            return
        try:
            async with asyncio.timeout(self._seconds):
                body = await self._read(scope, receive)
        except TimeoutError:
            error = RequestError(
                408,
                f"The body was not here after {self._seconds:g} s: send less at a time, or faster.",
                "body_too_slow",
            )
        except RequestError as refused:
            error = refused
        else:
            if body is not None:
                whole = {"type": "http.request", "body": body, "more_body": False}
                await self._app(scope, _again(whole, receive), send)
            return
        scope["state"]["error_code"] = error.code
        await send_json(send, error, {"Connection": "close"})

    async def _read(self, scope: Scope, receive: Receive) -> bytes | None:
        """The whole body; None where the client is gone. Raises RequestError 413."""
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        size = int(declared) if declared.isdigit() else 0
        pieces: list[bytes] = []
        received, more = 0, True
        while more and max(size, received) <= self._limit:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            pieces.append(message.get("body", b""))
            received += len(pieces[-1])
            more = message.get("more_body", False)
        if max(size, received) > self._limit:
            raise RequestError(
                413, f"The body is larger than {self._limit:,} bytes: send less at a time.", "body_too_large"
            )
        return b"".join(pieces)


def _again(first: Message, receive: Receive) -> Receive:
    """``receive`` as if ``first`` had not been read yet."""
    left = [first]

    async def replay() -> Message:
        return left.pop() if left else await receive()

    return replay


async def send_json(send: Send, error: RequestError, headers: Mapping[str, str] | None = None) -> None:
    """An error as a whole reply from outside the app."""
    content = json.dumps(error.body()).encode()
    raw = {
        "Content-Type": "application/json",
        "Content-Length": str(len(content)),
        **error.headers(),
        **(headers or {}),
    }
    pairs = [(name.lower().encode(), value.encode()) for name, value in raw.items()]
    await send({"type": "http.response.start", "status": error.status, "headers": pairs})
    await send({"type": "http.response.body", "body": content})
