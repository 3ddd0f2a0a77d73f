"""The HTTP side: OTLP in, traces as JSON and as a page out, health and metrics."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from trace_receiver import otlp, page, shown
from trace_receiver.metrics import Metrics
from trace_receiver.settings import Settings
from trace_receiver.spans import Span
from trace_receiver.store import Store
from trace_receiver.syslog import Listener

BODY_SECONDS = 10.0
MOST_LISTED = 1000
LISTED = 100


class Receiver:
    """What the routes share.

    Args:
        settings: bounds, and where nginx's lines come in.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.store = Store(settings.max_traces, settings.max_spans, settings.max_memory_bytes)
        self.metrics = Metrics(self.store)
        self.listener = Listener(self._line, self._malformed)

    def _line(self, span: Span) -> None:
        self.metrics.received["syslog"] += 1
        self.store.add(span)

    def _malformed(self) -> None:
        self.metrics.received["syslog"] += 1
        self.store.dropped["malformed"] += 1

    @asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        """Listens for nginx's lines for as long as the app runs. Raises OSError: the port is taken."""
        if not self.settings.syslog_port:
            yield
            return
        address = (self.settings.host, self.settings.syslog_port)
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(lambda: self.listener, local_addr=address)
        try:
            yield
        finally:
            transport.close()

    async def take(self, request: Request) -> Response:
        """POST /v1/traces."""
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        reply_kind = kind if kind == otlp.PROTOBUF else otlp.JSON
        try:
            body = otlp.unpack(
                await self._body(request),
                request.headers.get("content-encoding", "").strip().lower(),
                self.settings.max_body_bytes,
            )
            spans, bad = otlp.read(body, kind)
        except otlp.Refused as error:
            close = {"Connection": "close"} if error.status in (408, 413) else None
            return Response(otlp.refusal(error, reply_kind), error.status, close, reply_kind)
        self.metrics.received["otlp"] += len(spans) + bad
        self.store.dropped["malformed"] += bad
        for span in spans:
            self.store.add(span)
        return Response(otlp.accepted(bad, reply_kind), media_type=reply_kind)

    async def _body(self, request: Request) -> bytes:
        """As sent. Raises otlp.Refused: 413 when it is too large, 408 when it is too slow, 400 when it breaks off."""
        most = self.settings.max_body_bytes
        body = bytearray()
        try:
            async with asyncio.timeout(BODY_SECONDS):
                async for piece in request.stream():
                    body += piece
                    if len(body) > most:
                        raise otlp.Refused(413, f"The body is larger than {most:,} bytes: send fewer spans at a time.")
        except TimeoutError:
            raise otlp.Refused(408, f"The body did not come within {BODY_SECONDS:g} seconds.") from None
        except ClientDisconnect:
            raise otlp.Refused(400, "The body broke off.") from None
        return bytes(body)

    async def listed(self, request: Request) -> Response:
        """GET /traces?limit=100."""
        text = request.query_params.get("limit", str(LISTED))
        if not (text.isascii() and text.isdecimal() and len(text) < 8 and 1 <= int(text) <= MOST_LISTED):
            return JSONResponse({"error": f"limit is a whole number from 1 to {MOST_LISTED}."}, 400)
        return JSONResponse({"traces": shown.listed(self.store, int(text))})

    async def one(self, request: Request) -> Response:
        """GET /traces/{id}."""
        trace = self.store.get(request.path_params["id"].lower())
        if trace is None:
            return JSONResponse({"error": "No such trace: it never came, or made room for newer ones."}, 404)
        return JSONResponse(shown.whole(trace))

    async def page(self, request: Request) -> Response:
        """GET /, with ?trace=ID the waterfall of one."""
        return page.answer(self.store, request.query_params.get("trace"))

    async def health(self, request: Request) -> Response:
        """GET /health: 200, or 503 when nginx's lines can't come in."""
        well = self.listener.open or not self.settings.syslog_port
        body = {"status": "ok"} if well else {"status": "unwell", "reason": "the syslog port is closed"}
        return JSONResponse(body, 200 if well else 503)

    async def exposition(self, request: Request) -> Response:
        """GET /metrics."""
        return Response(generate_latest(self.metrics.registry), media_type=CONTENT_TYPE_LATEST)


def create_app(settings: Settings) -> Starlette:
    """The receiver as an ASGI app; its state has the ``receiver``."""
    receiver = Receiver(settings)
    routes = [
        Route("/", receiver.page),
        Route("/v1/traces", receiver.take, methods=["POST"]),
        Route("/traces", receiver.listed),
        Route("/traces/{id}", receiver.one),
        Route("/health", receiver.health),
        Route("/metrics", receiver.exposition),
    ]
    app = Starlette(routes=routes, lifespan=receiver.lifespan)
    app.state.receiver = receiver
    return app
