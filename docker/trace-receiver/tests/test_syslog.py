"""nginx's lines, good and bad, as datagrams."""

from __future__ import annotations

import json
import secrets

import pytest
from conftest import Receiver, new_trace, wait_for
from trace_receiver.syslog import Malformed, read

HEAD = "<190>Nov  1 14:27:01 0a1b2c3d nginx: "


def fields(**more: object) -> dict[str, object]:
    known = {
        "trace_id": new_trace(), "span_id": secrets.token_hex(8), "parent_span_id": "", "flags": "01", "end": "1800000001.500",
        "seconds": "0.250", "method": "GET", "path": "/v1/models", "status": "200", "port": "8443", "request_id": "r",
        "upstream": "10.0.0.2:8080", "upstream_status": "200", "upstream_seconds": "0.249",
    }  # fmt: skip
    return {**known, **more}


def line(head: str = HEAD, **more: object) -> bytes:
    return (head + json.dumps(fields(**more))).encode()


def test_a_line_is_a_span_that_ends_when_it_was_written() -> None:
    span = read(line())
    assert span
    assert (span.start, span.end) == (1_800_000_001_250_000_000, 1_800_000_001_500_000_000)
    assert (span.service, span.name, span.kind.name) == ("proxy", "GET /v1/models", "SERVER")
    assert span.attributes["http.response.status_code"] == 200
    assert span.attributes["nginx.upstream.address"] == "10.0.0.2:8080"


@pytest.mark.parametrize("head", ["<190>Nov 21 14:27:01 nginx: ", "<13>Jan 11 00:00:00 host.example.org web: "])
def test_with_and_without_a_host(head: str) -> None:
    assert read(line(head))


def test_several_upstreams_and_none() -> None:
    tried = read(line(upstream="10.0.0.2:8080, 10.0.0.3:8080", upstream_status="502, 200"))
    assert tried and tried.attributes["nginx.upstream.status"] == "502, 200"
    alone = read(line(upstream="", upstream_status="-", upstream_seconds="-"))
    assert alone and not [key for key in alone.attributes if key.startswith("nginx.")]


MALFORMED = [
    b"", b"\x00", b"<190>", b"garbage", b"\xff" * 2000, HEAD.encode(), HEAD.encode() + b"{", HEAD.encode() + b"[1]",
    b"<190>Nov 21 14:27:01 host nginx: 2026/11/21 14:27:01 [error] 7#7: *1 connect() failed",
    b"<190>" + b"a" * 60_000, b"<190>Nov 21 14:27:01 " + b": " * 20_000 + b"{}", HEAD.encode() + b'{"a":' * 9_000,
    line(trace_id="x"), line(trace_id="0" * 32), line(trace_id="a" * 33), line(span_id=""), line(span_id="0" * 16),
    line(trace_id=7), line(end="-"), line(end="nan"), line(end="1e999"), line(end="9" * 400), line(seconds="-1.5"),
    line(seconds=""), line(seconds=None), line(path=["x"]), line(more={"deep": [1]}),
]  # fmt: skip


@pytest.mark.parametrize("datagram", MALFORMED, ids=lambda data: data[:20].decode("latin-1"))
def test_malformed_lines_are_named_so(datagram: bytes) -> None:
    with pytest.raises(Malformed):
        read(datagram)


def test_odd_values_are_shown_as_they_are() -> None:
    span = read(line(status="000", port="x", parent_span_id="none", method="", path="/\x1b[31m\u202e<b>"))
    assert span
    assert (span.parent, span.attributes["http.response.status_code"], span.name) == ("", 0, "/\x1b[31m\u202e<b>")
    early = read(line(end="0.5", seconds="9999"))
    assert early and (early.start, early.duration) == (0, 500_000_000)


def test_malformed_lines_are_counted_and_good_ones_after_them_taken(receiver: Receiver) -> None:
    series = 'trace_receiver_spans_dropped_total{reason="malformed"}'
    before = receiver.metric(series)
    good = new_trace()
    receiver.lines(*MALFORMED, line(trace_id=good))
    assert receiver.trace(good)["root"] == "GET /v1/models"
    wait_for(lambda: receiver.metric(series) == before + len(MALFORMED))
    assert receiver.process.poll() is None
