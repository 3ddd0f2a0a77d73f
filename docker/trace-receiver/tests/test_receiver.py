"""The process: its list, its page, its health, its settings, and that hostile spans neither break it nor make it grow."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from html.parser import HTMLParser

import pytest
from conftest import ROOT, SECOND, Receiver, environment, free_port, new_trace, request, span, wait_for
from test_syslog import line

START = 1_800_000_000 * SECOND


def test_the_list_is_newest_first_and_limited(receiver: Receiver) -> None:
    ids = [new_trace() for _ in range(5)]
    for number, trace in enumerate(ids):
        receiver.post(request(span(trace, name=f"work {number}")))
    listed = receiver.client.get("/traces", params={"limit": 3}).json()["traces"]
    assert [trace["id"] for trace in listed] == ids[:1:-1]
    assert listed[0] == {
        "id": ids[4], "root": "work 4", "started": "2027-01-15T08:00:00.000+00:00", "duration_ms": 1000.0,
        "services": ["rag"], "span_count": 1, "failed": False,
    }  # fmt: skip
    for wrong in ("0", "-1", "1001", "x", "", "1e9", "٣"):
        assert receiver.client.get("/traces", params={"limit": wrong}).status_code == 400, wrong
    assert receiver.client.get(f"/traces/{new_trace()}").status_code == 404
    assert receiver.client.get("/traces/%2e%2e%2fetc").status_code == 404


class Page(HTMLParser):
    """Elements of a page, and its texts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


HOSTILE = "</span><script>alert(1)</script>\"' onmouseover=alert(2) style=x:y {{ 7*7 }} \u202e"


def test_the_page_shows_a_waterfall_and_escapes_what_strangers_wrote(receiver: Receiver) -> None:
    trace = new_trace()
    attributes = [{"key": HOSTILE, "value": {"stringValue": HOSTILE}}]
    middle = {"startTimeUnixNano": str(START + SECOND // 4), "endTimeUnixNano": str(START + SECOND // 2)}
    failed = {"status": {"code": 2, "message": HOSTILE}}
    receiver.post(request(span(trace, "a" * 16, name="outer"), service="rag"))
    receiver.post(
        request(
            span(trace, "b" * 16, parentSpanId="a" * 16, name=HOSTILE, attributes=attributes, **middle, **failed),
            service=HOSTILE,
        )
    )
    for path in ("/", f"/?trace={trace}"):
        reply = receiver.client.get(path)
        assert reply.status_code == 200
        assert "default-src 'none'" in reply.headers["content-security-policy"]
        page = Page(reply.text)
        assert not {"script", "link", "img", "iframe", "object"} & set(page.tags)
        assert not [name for name, _ in page.attributes if name.startswith("on")]
        assert not [
            value for name, value in page.attributes if name in ("href", "src") and not str(value).startswith("/")
        ]
        assert any("outer" in text for text in page.texts)
    assert any(HOSTILE in text for text in page.texts)
    styles = [str(value) for name, value in page.attributes if name == "style" and str(value).startswith("left")]
    assert [style.split(";")[:2] for style in styles] == [["left:0.0%", "width:100.0%"], ["left:25.0%", "width:25.0%"]]
    assert receiver.client.get("/?trace=nothing").status_code == 404


def test_hostile_spans_do_no_harm(receiver: Receiver) -> None:
    trace = new_trace()
    huge = [{"key": f"k{n}" * 100, "value": {"stringValue": "x" * 20_000}} for n in range(150)]
    odd = [
        span(trace, name="back in time", startTimeUnixNano=str(START), endTimeUnixNano=str(START - SECOND)),
        span(trace, name="at the end of all days", startTimeUnixNano=str(2**64 - 1), endTimeUnixNano="0"),
        span(trace, name="before all days", startTimeUnixNano="0", endTimeUnixNano=str(2**64 - 1)),
        span(trace, "c" * 16, name="its own parent", parentSpanId="c" * 16),
        span(trace, name="x" * 1_000_000, attributes=huge),
        span(trace, name="\x00\ud83d", kind=77, status={"code": 99}, parentSpanId="12"),
        span(trace, name="", attributes=[{"key": "", "value": {}}, {"key": "f", "value": {"doubleValue": "NaN"}}]),
        span(trace, attributes=[{"key": "m", "value": {"kvlistValue": {"values": [{"key": "a", "value": {}}]}}}]),
    ]
    for each in odd:
        assert receiver.post(request(each)).status_code in (200, 400), each["name"]
    seen = receiver.trace(trace)
    assert len(seen["spans"]) >= 7
    assert all(one["duration_ms"] >= 0 and one["start_ms"] >= 0 for one in seen["spans"])
    assert len(json.dumps(seen)) < 300_000
    assert json.loads(json.dumps(seen, allow_nan=False)) == seen
    assert receiver.client.get(f"/?trace={trace}").status_code == 200
    assert receiver.client.get("/traces").status_code == receiver.client.get("/").status_code == 200


def test_skewed_clocks_leave_offsets_from_the_first_that_began(receiver: Receiver) -> None:
    trace = new_trace()
    early = {"startTimeUnixNano": str(START - 5 * SECOND), "endTimeUnixNano": str(START - 4 * SECOND)}
    receiver.post(request(span(trace, "a" * 16), span(trace, "b" * 16, parentSpanId="a" * 16, **early)))
    seen = receiver.trace(trace)
    assert [(one["id"][0], one["start_ms"]) for one in seen["spans"]] == [("b", 0), ("a", 5000)]
    assert (seen["duration_ms"], seen["root"]) == (6000, "work")


def test_ten_thousand_traces_stay_within_bounds() -> None:
    text = [{"key": f"k{number}", "value": {"stringValue": "x" * 900}} for number in range(10)]
    with Receiver(MAX_TRACES=500, MAX_MEMORY_BYTES=2 * 2**20) as small:
        small.post(request(span(new_trace())))
        before = small.metric("process_resident_memory_bytes")
        last = ""
        for _ in range(100):
            ids = [new_trace() for _ in range(100)]
            assert small.post(request(*(span(id, attributes=text) for id in ids))).status_code == 200
            last = ids[-1]
        many = [span(last, attributes=text) for _ in range(200)]
        assert small.post(request(*many)).status_code == 200
        small.lines(*(line() for _ in range(1000)))
        wait_for(lambda: small.metric('trace_receiver_spans_received_total{source="syslog"}') > 0)
        assert small.metric("trace_receiver_traces") <= 500
        assert small.metric("trace_receiver_spans_bytes") <= 2 * 2**20
        assert small.metric('trace_receiver_spans_dropped_total{reason="evicted"}') > 9000
        assert small.metric('trace_receiver_spans_dropped_total{reason="trace_too_large"}') > 0
        # Bounded, not small: a body that is read takes memory for a moment, and Python keeps some of it.
        assert small.metric("process_resident_memory_bytes") < before + 40 * 2**20
        assert small.client.get("/health").json() == {"status": "ok"}


def test_metrics_are_what_promtool_likes(receiver: Receiver) -> None:
    unpacked = pytest.importorskip("course_lib.host.unpacked", reason="promtool comes from a package by course_lib")
    try:
        promtool = unpacked.program("promtool", "promtool")
    except unpacked.CourseError as error:
        pytest.skip(f"{error} {error.why}")
    text = receiver.client.get("/metrics").text
    checked = subprocess.run(
        [str(promtool), "check", "metrics"], input=text, capture_output=True, text=True, timeout=30
    )
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")


def health(**settings: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "trace_receiver.health"]
    return subprocess.run(command, env=environment(ROOT, **settings), capture_output=True, text=True, timeout=30)


def test_the_probe(receiver: Receiver) -> None:
    well = health(PORT=receiver.port, http_proxy="http://127.0.0.1:9")
    assert (well.returncode, well.stdout.split(":")[0]) == (0, "healthy")
    ill = health(PORT=free_port())
    assert (ill.returncode, ill.stdout.split(":")[0]) == (1, "unhealthy")


def start(**settings: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "trace_receiver"]
    known = {"HOST": "127.0.0.1", "PORT": free_port(), **settings}
    return subprocess.run(command, env=environment(ROOT, **known), capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    ("name", "value"),
    [("PORT", "0"), ("PORT", "x"), ("PORT", "٤٣١٨"), ("SYSLOG_PORT", "70000"), ("MAX_TRACES", "-1"), ("HOST", "no.such.host.invalid")],
)  # fmt: skip
def test_wrong_settings_are_refused_in_a_sentence(name: str, value: str) -> None:
    refused = start(**{name: value})
    assert refused.returncode == 1
    assert "Traceback" not in refused.stderr
    assert name in refused.stderr


def test_taken_ports_are_named() -> None:
    for name, kind in (("PORT", socket.SOCK_STREAM), ("SYSLOG_PORT", socket.SOCK_DGRAM)):
        with socket.socket(type=kind) as taken:
            taken.bind(("127.0.0.1", 0))
            if kind is socket.SOCK_STREAM:
                taken.listen()
            refused = start(**{name: taken.getsockname()[1]})
        assert refused.returncode == 1
        assert re.search(rf"can't listen .*: set {name} to a free port", refused.stderr)


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_sigterm_ends_it_well() -> None:
    with Receiver(SYSLOG_PORT=0) as running:
        assert running.client.get("/health").status_code == 200
        assert running.terminate() == 0
