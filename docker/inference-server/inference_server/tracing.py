"""Traces: W3C's traceparent in and out, and one server span a request to an OpenTelemetry collector.

After https://www.w3.org/TR/trace-context/ and https://opentelemetry.io/docs/specs/otlp/ (OTLP/HTTP with JSON). By the standard library: the
OpenTelemetry SDK would add several megabytes to the image for what are a hundred lines here.
"""

import json
import logging
import queue
import re
import secrets
import threading
import time
import urllib.request
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from prometheus_client import Counter

from inference_server import __version__
from inference_server.errors import StartError

log = logging.getLogger("inference_server")
TRACEPARENT = re.compile(r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
current: ContextVar[str] = ContextVar("traceparent", default="")
"""The traceparent for what the request in this context asks of other servers; empty where it is in no trace."""
SERVER_KIND = 2  # SPAN_KIND_SERVER
ERROR_STATUS = 2  # STATUS_CODE_ERROR
MOST_WAITING = 2048
BATCH = 512
SEND_SECONDS = 5.0
CLOSE_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Trace:
    """Where a request stands in its trace; ids in hexadecimal, ``parent`` empty for the first span of one."""

    trace_id: str
    span_id: str
    parent: str
    sampled: bool

    @property
    def header(self) -> str:
        """The traceparent of what this request is the parent of."""
        return f"00-{self.trace_id}-{self.span_id}-{'01' if self.sampled else '00'}"


def begin(given: bytes | None, always: bool) -> Trace | None:
    """The span of a request that came with this traceparent; with ``always`` also for one that came with none."""
    found = TRACEPARENT.fullmatch(given.decode("latin-1").strip()) if given else None
    if found and (found[1] != "00" or found[5] is None):  # version 00 has four parts, later ones may have more
        return Trace(found[2], secrets.token_hex(8), found[3], bool(int(found[4], 16) & 1))
    return Trace(secrets.token_hex(16), secrets.token_hex(8), "", True) if always else None


class Exporter:
    """Sends spans from a thread of its own; what it can't keep up with, or nobody takes, is dropped and counted.

    Args:
        endpoint: OTEL_EXPORTER_OTLP_ENDPOINT, to which /v1/traces is added. Raises StartError when it is no such thing.
        service: OTEL_SERVICE_NAME.
        dropped: counts spans that were lost.
    """

    def __init__(self, endpoint: str, service: str, dropped: Counter) -> None:
        try:
            parts = urlsplit(endpoint)
            good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            good = False
        if not good:
            raise StartError(
                "OTEL_EXPORTER_OTLP_ENDPOINT is no address of a collector: write one such as http://collector:4318."
            )
        self._url = endpoint.rstrip("/") + "/v1/traces"
        self._resource = {
            "attributes": [_attribute("service.name", service), _attribute("service.version", __version__)]
        }
        self._dropped = dropped
        self._spans: queue.Queue[dict[str, Any] | None] = queue.Queue(MOST_WAITING)
        self._failing = False
        self._thread = threading.Thread(target=self._run, name="traces", daemon=True)
        self._thread.start()

    def end(self, trace: Trace, name: str, seconds: float, attributes: dict[str, object], failed: bool) -> None:
        """A span that is over now and took ``seconds``; never waits."""
        if not trace.sampled:
            return
        now = time.time_ns()
        span: dict[str, Any] = {
            "traceId": trace.trace_id,
            "spanId": trace.span_id,
            "name": name,
            "kind": SERVER_KIND,
            "startTimeUnixNano": str(now - int(seconds * 1e9)),
            "endTimeUnixNano": str(now),
            "attributes": [_attribute(key, value) for key, value in attributes.items()],
            "status": {"code": ERROR_STATUS} if failed else {},
        }
        if trace.parent:
            span["parentSpanId"] = trace.parent
        try:
            self._spans.put_nowait(span)
        except queue.Full:
            self._dropped.inc()

    def close(self) -> None:
        """Send what is left, for at most two seconds."""
        try:
            self._spans.put_nowait(None)
        except queue.Full:
            return
        self._thread.join(CLOSE_SECONDS)

    def _run(self) -> None:
        while True:
            span = self._spans.get()
            batch = [span] if span else []
            while span and len(batch) < BATCH:
                try:
                    span = self._spans.get_nowait()
                except queue.Empty:
                    break
                if span:
                    batch.append(span)
            if batch:
                self._send(batch)
            if span is None:
                return

    def _send(self, batch: list[dict[str, Any]]) -> None:
        scope = {"name": "inference_server", "version": __version__}
        body = {"resourceSpans": [{"resource": self._resource, "scopeSpans": [{"scope": scope, "spans": batch}]}]}
        request = urllib.request.Request(
            self._url, json.dumps(body).encode(), {"Content-Type": "application/json"}, method="POST"
        )
        try:
            with urllib.request.urlopen(request, timeout=SEND_SECONDS) as reply:
                reply.read()
        except (OSError, ValueError) as error:
            self._dropped.inc(len(batch))
            if not self._failing:  # once, not with every request
                log.warning("spans could not be sent", extra={"fields": {"reason": str(error)[:200]}})
            self._failing = True
        else:
            self._failing = False


def _attribute(key: str, value: object) -> dict[str, Any]:
    """A KeyValue; 64-bit integers are strings in protobuf's JSON."""
    return {"key": key, "value": {"intValue": str(value)} if isinstance(value, int) else {"stringValue": str(value)}}
