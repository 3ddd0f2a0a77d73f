"""OTLP/HTTP as its specification has it: both encodings, gzip, partial success, and refusals in the request's own encoding."""

from __future__ import annotations

import gzip
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import SECOND, Receiver, new_trace, request, span
from google.protobuf import json_format
from google.rpc.status_pb2 import Status
from opentelemetry import trace as api
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExportResult

PROTOBUF = {"Content-Type": "application/x-protobuf"}


def message(trace: bytes = b"t" * 16, span_id: bytes = b"s" * 8) -> ExportTraceServiceRequest:
    built = ExportTraceServiceRequest()
    made = built.resource_spans.add().scope_spans.add().spans.add()
    made.trace_id, made.span_id, made.name = trace, span_id, "work"
    made.start_time_unix_nano, made.end_time_unix_nano = SECOND, 2 * SECOND
    return built


@pytest.mark.parametrize("compression", [Compression.NoCompression, Compression.Gzip])
def test_opentelemetrys_own_exporter(receiver: Receiver, compression: Compression) -> None:
    results: list[SpanExportResult] = []

    class Watched(OTLPSpanExporter):
        def export(self, spans):  # type: ignore[no-untyped-def]
            results.append(super().export(spans))
            return results[-1]

    provider = TracerProvider(resource=Resource.create({"service.name": "rag"}))
    exporter = Watched(endpoint=f"{receiver.url}/v1/traces", compression=compression)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer("test")
    with tracer.start_as_current_span("POST /ask", kind=api.SpanKind.SERVER) as outer:
        plain = {"peer.service": "chroma", "n": 3, "ratio": 0.5, "cached": False}
        attributes: dict[str, Any] = {**plain, "ids": ["a", "b"]}
        with (
            pytest.raises(ValueError, match="no passage"),
            tracer.start_as_current_span("query", kind=api.SpanKind.CLIENT, attributes=attributes),
        ):
            raise ValueError("no passage")
    provider.shutdown()
    assert results == [SpanExportResult.SUCCESS] * 2
    seen = receiver.trace(f"{outer.get_span_context().trace_id:032x}")
    first, second = seen["spans"]
    assert (first["service"], first["name"], first["kind"], first["parent"]) == ("rag", "POST /ask", "server", None)
    assert (second["name"], second["kind"], second["parent"]) == ("query", "client", first["id"])
    assert (second["status"], second["message"]) == ("error", "ValueError: no passage")
    assert {key: second["attributes"][key] for key in plain} == plain
    assert '"a"' in second["attributes"]["ids"] and '"b"' in second["attributes"]["ids"]
    assert 0 <= second["start_ms"] <= first["duration_ms"]
    assert (seen["root"], seen["services"], seen["failed"]) == ("POST /ask", ["rag", "chroma"], True)


def test_json_with_hexadecimal_ids_and_64_bit_numbers_as_text(receiver: Receiver) -> None:
    trace = new_trace()
    attributes = [{"key": "port", "value": {"intValue": "8080"}}]
    parent, child = "a1" * 8, "b2" * 8
    late = {
        "startTimeUnixNano": str(1_800_000_000 * SECOND + 250_000_000),
        "endTimeUnixNano": str(1_800_000_000 * SECOND + 750_500_000),
    }
    reply = receiver.post(
        request(span(trace, child, parentSpanId=parent, attributes=attributes, **late), span(trace, parent))
    )
    assert (reply.status_code, reply.headers["content-type"], reply.json()) == (200, "application/json", {})
    first, second = receiver.trace(trace)["spans"]
    assert (first["id"], first["start_ms"], first["duration_ms"]) == (parent, 0, 1000)
    assert (second["id"], second["parent"]) == (child, parent)
    assert (second["start_ms"], second["duration_ms"], second["attributes"]) == (250, 500.5, {"port": 8080})


def test_unknown_fields_are_passed_over_and_empty_requests_taken(receiver: Receiver) -> None:
    trace = new_trace()
    body = {**request(span(trace, newer="field", links=[{"traceId": trace}])), "newer": [1]}
    assert receiver.post(body).status_code == 200
    assert len(receiver.trace(trace)["spans"]) == 1
    assert receiver.post({}).status_code == 200
    assert receiver.client.post("/v1/traces", content=b"", headers=PROTOBUF).content == b""


def test_a_partial_success_says_how_many_spans_were_not_taken(receiver: Receiver) -> None:
    trace = new_trace()
    bad: list[dict[str, object]] = [
        span("0" * 32),
        span("abc"),
        span("no hexadecimal"),
        span(trace, "0" * 16),
        {"name": "no ids"},
    ]
    reply = receiver.post(request(span(trace), *bad))
    assert reply.status_code == 200
    assert reply.json()["partialSuccess"]["rejectedSpans"] == "5"
    assert "16 bytes" in reply.json()["partialSuccess"]["errorMessage"]
    assert len(receiver.trace(trace)["spans"]) == 1
    sent = message(trace=b"short").SerializeToString()
    answered = ExportTraceServiceResponse.FromString(
        receiver.client.post("/v1/traces", content=sent, headers=PROTOBUF).content
    )
    assert answered.partial_success.rejected_spans == 1


def deep(levels: int) -> bytes:
    value = '{"arrayValue":{"values":[' * levels + "]}}" * levels
    head = json.dumps(request(span(new_trace(), attributes=[{"key": "a", "value": "HERE"}])))
    return head.replace('"HERE"', value).encode()


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[]", b"3", b"null", b'"text"', b"\xff\xfe", b'{"resourceSpans": 3}', b'{"resourceSpans": [3]}',
        b'{"resourceSpans": [{"scopeSpans": [{"spans": ["x"]}]}]}',
        json.dumps(request(span(new_trace(), startTimeUnixNano="yesterday"))).encode(),
        json.dumps(request(span(new_trace(), startTimeUnixNano=str(2**70)))).encode(),
        json.dumps(request(span(new_trace(), startTimeUnixNano="-5"))).encode(),
        json.dumps(request(span(new_trace(), attributes=7))).encode(),
        b"[" * 100_000, deep(2000), b"9" * 5000,
    ],
    ids=lambda body: body[:24].decode("latin-1"),
)  # fmt: skip
def test_garbage_in_json_gets_400_and_a_status(receiver: Receiver, body: bytes) -> None:
    reply = receiver.client.post("/v1/traces", content=body, headers={"Content-Type": "application/json"})
    assert (reply.status_code, reply.headers["content-type"]) == (400, "application/json")
    assert reply.json()["code"] == 3
    assert "ExportTraceServiceRequest" in reply.json()["message"]


@pytest.mark.parametrize("body", [b"\xff" * 50, b"{}", message().SerializeToString()[:-3]], ids=["ff", "json", "cut"])
def test_garbage_in_protobuf_gets_400_and_a_status_in_protobuf(receiver: Receiver, body: bytes) -> None:
    reply = receiver.client.post("/v1/traces", content=body, headers=PROTOBUF)
    assert (reply.status_code, reply.headers["content-type"]) == (400, "application/x-protobuf")
    status = Status.FromString(reply.content)
    assert status.code == 3
    assert "ExportTraceServiceRequest" in status.message


def test_gzip_and_what_is_not(receiver: Receiver) -> None:
    trace = new_trace()
    packed = gzip.compress(json.dumps(request(span(trace))).encode())
    as_json = {"Content-Type": "application/json; charset=utf-8", "Content-Encoding": "gzip"}
    assert receiver.client.post("/v1/traces", content=packed, headers=as_json).status_code == 200
    assert receiver.trace(trace)["span_count"] == 1
    for body in (b"plain", packed[:-12], packed[:-4], b""):
        assert receiver.client.post("/v1/traces", content=body, headers=as_json).status_code == 400, body
    for headers in ({**as_json, "Content-Encoding": "br"}, {"Content-Type": "text/plain"}, {}):
        assert receiver.client.post("/v1/traces", content=packed, headers=headers).status_code == 415, headers


def test_bodies_above_the_limit_get_413_packed_or_not() -> None:
    with Receiver(MAX_BODY_BYTES=2000) as small:
        big = json.dumps(request(span(new_trace(), name="x" * 3000))).encode()
        for body, encoding in ((big, "identity"), (gzip.compress(big), "gzip")):
            headers = {"Content-Type": "application/json", "Content-Encoding": encoding}
            reply = small.client.post("/v1/traces", content=body, headers=headers)
            assert (reply.status_code, reply.json()["code"]) == (413, 8), encoding
        assert small.post(request(span(new_trace()))).status_code == 200
        assert small.client.get("/traces").json()["traces"][0]["span_count"] == 1


@pytest.mark.skipif(sys.platform != "linux", reason="the most memory a process ever had is in /proc")
def test_a_bomb_is_not_unpacked(receiver: Receiver) -> None:
    def most_ever() -> int:
        status = Path(f"/proc/{receiver.process.pid}/status").read_text()
        return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) * 1024

    bomb = gzip.compress(b" " * 200_000_000)
    before = most_ever()
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    assert receiver.client.post("/v1/traces", content=bomb, headers=headers).status_code == 413
    assert most_ever() < before + 50_000_000


def test_the_json_of_the_tests_is_the_protobuf_of_the_specification() -> None:
    """So that both ways above say the same."""
    parsed = json_format.ParseDict(
        request(span("YWFhYWFhYWFhYWFhYWFhYQ==", "YWFhYWFhYWE=")), ExportTraceServiceRequest()
    )
    assert parsed.resource_spans[0].scope_spans[0].spans[0].end_time_unix_nano == 1_800_000_001 * SECOND
