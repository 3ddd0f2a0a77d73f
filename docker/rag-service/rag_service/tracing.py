"""Traces: W3C's traceparent in and out, a span a request and one for each stage, by OpenTelemetry's SDK.

Without a collector the same code runs and only hands the ids on.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from rag_service import __version__
from rag_service.settings import Settings

EXPORT_SECONDS = 2
_w3c = TraceContextTextMapPropagator()


class Tracing:
    """The spans of one service. ``close`` sends what is left and waits for two seconds at most."""

    def __init__(self, settings: Settings) -> None:
        resource = Resource({SERVICE_NAME: settings.otel_service_name, SERVICE_VERSION: __version__})
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        if settings.otel_exporter_otlp_endpoint:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

            exporter = OTLPSpanExporter(
                endpoint=settings.otel_exporter_otlp_endpoint.rstrip("/") + "/v1/traces", timeout=EXPORT_SECONDS
            )
            self._provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=1000))
        self._tracer = self._provider.get_tracer("rag_service", __version__)

    @contextmanager
    def request(self, method: str, headers: Mapping[str, str]) -> Iterator[trace.Span]:
        """The span of a request, a child of the one that its traceparent names."""
        with self._tracer.start_as_current_span(
            method, _w3c.extract(headers, Context()), trace.SpanKind.SERVER, record_exception=False
        ) as span:
            yield span

    @contextmanager
    def call(self, name: str, peer: str) -> Iterator[trace.Span]:
        """The span of a stage in which another service is asked."""
        with self._tracer.start_as_current_span(
            name, kind=trace.SpanKind.CLIENT, attributes={"peer.service": peer}, record_exception=False
        ) as span:
            yield span

    def close(self) -> None:
        """See the class."""
        self._provider.shutdown()


def outgoing() -> dict[str, str]:
    """Headers that let another service continue the trace of this context."""
    headers: dict[str, str] = {}
    _w3c.inject(headers)
    return headers


def trace_id(span: trace.Span) -> str:
    """32 hexadecimal digits."""
    return trace.format_trace_id(span.get_span_context().trace_id)
