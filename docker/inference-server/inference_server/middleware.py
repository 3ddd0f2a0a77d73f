"""Around every request: an id, a log line, metrics, limits on its body, and the 503 of a server that is on its way out.

Plain ASGI, because wrapping each reply in another task (as a middleware function would) costs a streaming server dear.
"""

import asyncio
import json
import logging
import re
import time
from collections.abc import Mapping
from functools import cache

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from inference_server import tracing, traffic
from inference_server.errors import RequestError, body_too_slow
from inference_server.ids import new_id
from inference_server.serving import Phase, Serving

log = logging.getLogger("inference_server.access")
REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")
CLOSED = "the handler is closed"  # uvloop, of a connection
CLIENT_GONE = 499  # nginx's number for a client that left before its answer


class RequestContext:
    """Request id in and out, X-Model-Name and X-Model-Version, one log line and the HTTP metrics a request."""

    def __init__(self, app: ASGIApp, serving: Serving) -> None:
        self._app = app
        self._serving = serving
        # Each series is looked up once: by its labels it takes a lock and a tuple of strings each time.
        self._counter = cache(serving.metrics.http_requests.labels)
        self._timer = cache(serving.metrics.http_seconds.labels)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start = time.perf_counter()
        serving = self._serving
        sent = dict(scope["headers"])
        given = sent.get(b"x-request-id", b"").decode("latin-1")
        traffic.user_is(sent.get(b"x-user-id"))
        request_id = given if REQUEST_ID.fullmatch(given) else new_id()
        state = scope.setdefault("state", {})
        state["request_id"] = request_id
        trace = state["trace"] = tracing.begin(sent.get(b"traceparent"), serving.spans is not None)
        tracing.current.set(trace.header if trace else "")
        status = CLIENT_GONE

        async def send_on(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = [*message["headers"], (b"x-request-id", request_id.encode())]
                if trace:
                    headers.append((b"traceparent", trace.header.encode()))
                if "model" in state:
                    headers += [
                        (b"x-model-name", state["model"].name.encode()),
                        (b"x-model-version", state["model"].version.encode()),
                    ]
                if serving.phase in (Phase.LEAVING, Phase.DRAINING):
                    headers.append((b"connection", b"close"))
                message = {**message, "headers": headers}
            try:
                await send(message)
            except RuntimeError as error:
                if CLOSED not in str(error):  # it broke this moment, and uvicorn has not heard of it yet
                    raise

        number = serving.begin()
        try:
            if serving.phase is Phase.DRAINING and scope["path"] not in serving.probes:
                error = RequestError(
                    503, "The server is stopping: send this to another one.", "draining", retry_after=1
                )
                await send_json(send_on, 503, error.body(scope["path"]), error.headers())
            else:
                await self._app(scope, receive, send_on)
        except Exception:
            logging.getLogger("inference_server").exception(
                "bug in a request", extra={"fields": {"request_id": request_id}}
            )
            if status == CLIENT_GONE:
                error = RequestError(500, "Something broke here; the log has it under this request's id.", "bug")
                await send_json(send_on, 500, error.body(scope["path"]))
        finally:
            serving.end(number)
            self._record(scope, status, time.perf_counter() - start)

    def _record(self, scope: Scope, status: int, seconds: float) -> None:
        """The metrics and the log line of a finished request. The route is its pattern: paths from outside would be endless series."""
        route = getattr(scope.get("route"), "path", "none")
        method = scope["method"] if route != "none" else "none"
        self._counter(method, route, str(status)).inc()
        self._timer(route).observe(seconds)
        state = scope["state"]
        fields = {
            "request_id": state["request_id"],
            "method": scope["method"],
            "route": route,
            "status": status,
            "ms": round(seconds * 1000, 2),
        }
        if "model" in state:
            fields |= {"model": state["model"].name, "version": state["model"].version}
        if "usage" in state:
            fields |= {
                "prompt_tokens": state["usage"].prompt_tokens,
                "completion_tokens": state["usage"].completion_tokens,
            }
        if "error_code" in state:
            fields["error"] = state["error_code"]
        if "key" in state:
            fields["key"] = state["key"]
        if trace := state["trace"]:
            fields |= {"trace_id": trace.trace_id, "span_id": trace.span_id}
            if self._serving.spans and route not in self._serving.probes:
                self._serving.spans.end(trace, f"{method} {route}", seconds, _attributes(fields), status >= 500)
        log.log(
            logging.DEBUG if route in self._serving.probes and status == 200 else logging.INFO,
            "request",
            extra={"fields": fields},
        )


# A log line's fields by their names in OpenTelemetry's semantic conventions.
CONVENTIONS = {
    "method": "http.request.method",
    "route": "http.route",
    "status": "http.response.status_code",
    "error": "error.type",
    "model": "gen_ai.request.model",
    "prompt_tokens": "gen_ai.usage.input_tokens",
    "completion_tokens": "gen_ai.usage.output_tokens",
    "request_id": "http.request.header.x-request-id",
}


def _attributes(fields: Mapping[str, object]) -> dict[str, object]:
    return {name: fields[key] for key, name in CONVENTIONS.items() if key in fields}


class BodyLimit:
    """Reads the body before anything else does, up to MAX_BODY_BYTES, above which it gets 413, and for RECEIVE_TIMEOUT_SECONDS, after which
    it gets 408.
    """

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
            error = body_too_slow(self._seconds)
        except RequestError as refused:
            error = refused
        else:
            if body is not None:
                whole = {"type": "http.request", "body": body, "more_body": False}
                await self._app(scope, again(whole, receive), send)
            return
        scope["state"]["error_code"] = error.code
        await send_json(send, error.status, error.body(scope["path"]), {"Connection": "close"})

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


def again(first: Message, receive: Receive) -> Receive:
    """``receive`` as if ``first`` had not been read yet."""
    left = [first]

    async def replay() -> Message:
        return left.pop() if left else await receive()

    return replay


async def send_json(
    send: Send, status: int, body: Mapping[str, object], headers: Mapping[str, str] | None = None
) -> None:
    """A whole JSON reply from outside the app."""
    content = json.dumps(body).encode()
    raw = {"Content-Type": "application/json", "Content-Length": str(len(content)), **(headers or {})}
    pairs = [(name.lower().encode(), value.encode()) for name, value in raw.items()]
    await send({"type": "http.response.start", "status": status, "headers": pairs})
    await send({"type": "http.response.body", "body": content})
