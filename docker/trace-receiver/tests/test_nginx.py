"""A real nginx with the stack's own log format: a trace through it, into the receiver."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path

import httpx
import pytest
from conftest import STACK, Process, Receiver, free_port, new_trace, wait_for
from test_inference_server import Inference

CONFIGURATION = """
daemon off;
pid {folder}/pid;
error_log {folder}/error.log;
events {{ }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {format};
    upstream model {{ server 127.0.0.1:{dead}; server 127.0.0.1:{upstream}; }}
    upstream nobody {{ server 127.0.0.1:{dead}; }}
    server {{
        listen 127.0.0.1:{port};
        access_log syslog:server=127.0.0.1:{syslog},tag=nginx trace_json;
        proxy_set_header traceparent $trace_parent;
        location /api/ {{ rewrite ^/api(/.*)$ $1 break; proxy_pass http://model; }}
        location /gone/ {{ proxy_pass http://nobody; }}
        location /healthz {{ access_log off; return 200; }}
        location /echo {{ return 200 "$trace_parent"; }}
    }}
}}
"""


@pytest.fixture(scope="module")
def inference(receiver: Receiver) -> Iterator[Inference]:
    with Inference(receiver) as server:
        yield server


@pytest.fixture(scope="module")
def nginx(receiver: Receiver, inference: Process, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    unpacked = pytest.importorskip("course_lib.host.unpacked", reason="nginx comes from a package by course_lib")
    try:
        program = unpacked.program("nginx", "nginx", says_version="-v")
    except unpacked.CourseError as error:
        pytest.skip(f"{error} {error.why}")
    folder: Path = tmp_path_factory.mktemp("nginx")
    port, dead = free_port(), free_port()
    text = CONFIGURATION.format(
        folder=folder,
        format=STACK / "nginx" / "trace_format.conf",
        port=port,
        dead=dead,
        upstream=inference.url.rpartition(":")[2],
        syslog=receiver.syslog_port,
    )
    (folder / "nginx.conf").write_text(text)
    command = [str(program), "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", str(folder / "error.log")]
    checked = subprocess.run([*command, "-t"], capture_output=True, text=True, timeout=30)
    assert checked.returncode == 0, checked.stderr
    assert "[warn]" not in checked.stderr.replace('the "user" directive', ""), checked.stderr
    process = subprocess.Popen(command)
    client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30)

    def answers() -> bool:
        assert process.poll() is None, (folder / "error.log").read_text()
        try:
            return client.get("/healthz").status_code == 200
        except httpx.TransportError:
            return False

    try:
        wait_for(answers)
        yield client
    finally:
        client.close()
        process.terminate()
        process.wait(timeout=20)


def test_a_trace_begins_at_the_proxy_and_goes_on_behind_it(nginx: httpx.Client, receiver: Receiver) -> None:
    chat = {"model": "tutor", "messages": [{"role": "user", "content": "What is Docker?"}], "max_tokens": 4}
    for _ in range(2):  # the upstream that is not there is tried first once, then left alone
        reply = nginx.post("/api/v1/chat/completions?key=secret", json=chat)
        assert reply.status_code == 200
        trace = reply.headers["traceparent"].split("-")[1]
        seen = receiver.whole(trace, 2)
        outer, inner = seen["spans"]
        assert seen["services"] == ["proxy", "inference-server"]
        assert (outer["service"], outer["kind"], outer["parent"]) == ("proxy", "server", None)
        assert inner["parent"] == outer["id"] == trace[:16]
        assert outer["name"] == "POST /api/v1/chat/completions"
        assert "secret" not in json.dumps(seen)
        said = outer["attributes"]
        assert (said["http.response.status_code"], said["http.request.method"]) == (200, "POST")
        assert said["http.request.header.x-request-id"] == trace
        if "," in said["nginx.upstream.address"]:
            assert said["nginx.upstream.status"] == "502, 200"
    # Only beginnings have an order: a client may have its answer before the server behind has ended its span. nginx's clock
    # ticks in milliseconds, and both clocks are this machine's.
    assert outer["start_ms"] - 2 <= inner["start_ms"] <= outer["start_ms"] + outer["duration_ms"] + 2


def test_a_clients_own_trace_is_taken_over(nginx: httpx.Client, receiver: Receiver) -> None:
    trace, parent = new_trace(), "cd" * 8
    reply = nginx.get("/api/v1/models", headers={"traceparent": f"00-{trace}-{parent}-01"})
    assert reply.status_code == 200
    spans = receiver.whole(trace, 2)["spans"]
    outer = next(span for span in spans if span["service"] == "proxy")
    inner = next(span for span in spans if span["service"] != "proxy")
    assert (outer["parent"], inner["parent"]) == (parent, outer["id"])


def test_who_does_not_want_a_trace_gets_none(nginx: httpx.Client, receiver: Receiver) -> None:
    quiet, loud = new_trace(), new_trace()
    for trace, flags in ((quiet, "00"), (loud, "01")):
        assert nginx.get("/api/v1/models", headers={"traceparent": f"00-{trace}-{'cd' * 8}-{flags}"}).status_code == 200
    receiver.whole(loud, 2)
    assert receiver.client.get(f"/traces/{quiet}").status_code == 404


@pytest.mark.parametrize(
    "given",
    [
        "", "nonsense", f"00-{'0' * 32}-{'a' * 16}-01", f"00-{'a' * 32}-{'0' * 16}-01", f"ff-{'a' * 32}-{'b' * 16}-01",
        f"00-{'A' * 32}-{'b' * 16}-01", f"00-{'a' * 32}-{'b' * 16}-01-more", f"00-{'a' * 31}-{'b' * 16}-01",
        f'00-{"a" * 32}-{"b" * 16}-01","x":"y', f"00-{'a' * 32}-{'b' * 16}-01\u00ff",
    ],
)  # fmt: skip
def test_a_traceparent_that_is_none_begins_a_trace_of_our_own(nginx: httpx.Client, given: str) -> None:
    made = nginx.get("/echo", headers={b"traceparent": given.encode("latin-1")}).text
    found = re.fullmatch(r"00-([0-9a-f]{32})-([0-9a-f]{16})-01", made)
    assert found and found[1].startswith(found[2]) and "a" * 31 not in made


def test_a_later_version_with_more_parts_is_taken_over(nginx: httpx.Client) -> None:
    made = nginx.get("/echo", headers={"traceparent": f"cc-{'a' * 32}-{'b' * 16}-00-what-comes-later"}).text
    assert re.fullmatch(rf"00-{'a' * 32}-[0-9a-f]{{16}}-00", made)


def test_failures_and_hostile_paths_arrive(nginx: httpx.Client, receiver: Receiver) -> None:
    path = '/gone/"quote\\back<script>%22%0a%ff'
    trace = new_trace()
    headers = {"traceparent": f"00-{trace}-{'cd' * 8}-01"}
    with closing(
        HTTPConnection(nginx.base_url.host, nginx.base_url.port, timeout=30)
    ) as raw:  # httpx would mend the path
        raw.request("GET", path + "?key=secret", headers=headers)
        assert raw.getresponse().status == 502
    (seen,) = receiver.trace(trace)["spans"]
    assert seen["status"] == "error"
    assert seen["attributes"]["http.response.status_code"] == 502
    assert seen["attributes"]["url.path"] == path
