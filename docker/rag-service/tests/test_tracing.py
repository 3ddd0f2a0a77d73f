"""Traces: the span of a request continues its caller's, the stages are its children, and those who are asked continue them."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from conftest import VOLUMES, Process, Rag, make_inference, wait_for
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

CALLER = "0af7651916cd43dd8448eb211c80319c"
QUESTION = {"question": "Does a volume outlive the container that used it?"}


class Collector:
    """OTLP/HTTP as a collector takes it: /v1/traces, protobuf."""

    def __init__(self) -> None:
        self.requests: list[ExportTraceServiceRequest] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.path == "/v1/traces" and self.headers["Content-Type"] == "application/x-protobuf":
                    collector.requests.append(ExportTraceServiceRequest.FromString(body))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def spans(self) -> list[Span]:
        """All spans so far."""
        return [
            span
            for request in list(self.requests)
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def collector() -> Iterator[Collector]:
    serving = Collector()
    yield serving
    serving.close()


def attributes(span: Span) -> dict[str, object]:
    return {
        each.key: each.value.string_value or each.value.int_value or each.value.bool_value for each in span.attributes
    }


def test_one_trace_from_the_caller_to_inference(chroma: Process, collector: Collector) -> None:
    with make_inference() as inference, Rag(chroma, inference, OTEL_EXPORTER_OTLP_ENDPOINT=collector.url) as rag:
        rag.add("a.md", VOLUMES)
        headers = {"traceparent": f"00-{CALLER}-b7ad6b7169203331-01", "X-Request-ID": "traced-7"}
        reply = rag.client.post("/answer", json=QUESTION, headers=headers)

        def ours() -> dict[str, Span]:
            return {span.name: span for span in collector.spans() if span.trace_id.hex() == CALLER}

        wait_for(lambda: "POST /answer" in ours())
        spans = ours()
        assert spans.keys() == {"POST /answer", "embed", "search", "generate"}
        server = spans["POST /answer"]
        assert (server.kind, server.parent_span_id.hex()) == (Span.SPAN_KIND_SERVER, "b7ad6b7169203331")
        assert reply.headers["traceparent"] == f"00-{CALLER}-{server.span_id.hex()}-01"
        described = attributes(server)
        assert (described["http.route"], described["http.response.status_code"]) == ("/answer", 200)
        assert described["rag.answered_by"] == reply.json()["answered_by"]
        for name, peer in (("embed", "inference"), ("search", "chroma"), ("generate", "inference")):
            span = spans[name]
            assert (span.kind, span.parent_span_id) == (Span.SPAN_KIND_CLIENT, server.span_id)
            assert attributes(span)["peer.service"] == peer
            assert server.start_time_unix_nano <= span.start_time_unix_nano <= span.end_time_unix_nano
            assert span.end_time_unix_nano <= server.end_time_unix_nano
        (resource,) = {
            each.resource.SerializeToString() for request in collector.requests for each in request.resource_spans
        }
        assert b"service.name" in resource
        assert b"rag" in resource
        line = next(line for line in rag.lines() if line.get("request_id") == "traced-7")
        assert line["trace_id"] == CALLER
        heard = [line for line in inference.lines() if line.get("trace_id") == CALLER]
        assert {line["route"] for line in heard} == {"/v1/embeddings", "/v1/chat/completions"}
        assert {line["request_id"] for line in heard} == {"traced-7"}
        assert not any("volume" in str(attributes(span)) for span in collector.spans())


def test_probes_are_in_no_trace_and_errors_are_marked(
    chroma: Process, inference: Process, collector: Collector
) -> None:
    with Rag(
        chroma, inference, OTEL_EXPORTER_OTLP_ENDPOINT=collector.url, INFERENCE_URL="http://127.0.0.1:9/v1"
    ) as rag:
        for path in ("/health", "/ready", "/metrics"):
            assert "traceparent" not in rag.client.get(path).headers
        rag.client.post("/documents", json={"source": "a", "text": "b"})
        wait_for(lambda: bool(collector.spans()))
        assert {span.name for span in collector.spans()} == {"POST /documents"}
        (span,) = collector.spans()
        assert span.status.code == Status.STATUS_CODE_ERROR
        assert len(span.trace_id.hex()) == 32
        assert span.parent_span_id == b""


@pytest.mark.parametrize("sent", ["nonsense", "00-" + "0" * 32 + "-b7ad6b7169203331-01"])
def test_a_traceparent_that_is_none(rag: Rag, sent: str) -> None:
    reply = rag.client.get("/documents", headers={"traceparent": sent})
    assert reply.status_code == 200
    assert reply.headers["traceparent"].split("-")[1] not in (sent, "0" * 32)


def test_a_collector_that_is_away_costs_nothing(chroma: Process, inference: Process) -> None:
    import signal

    with Rag(chroma, inference, OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9") as rag:
        rag.add("a.md", VOLUMES)
        assert rag.client.post("/answer", json=QUESTION).status_code == 200
        start = time.monotonic()
        assert rag.stop(signal.SIGTERM) == 0
        assert time.monotonic() - start < 10  # Docker would kill it then
        assert all(isinstance(line, dict) for line in rag.lines())
