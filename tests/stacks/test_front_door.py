"""The stack's front door: TLS that is verified, limits, ids that can be followed, and nothing shown that is not for everybody."""

from __future__ import annotations

import json
import re
import socket
import ssl
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from course_lib import shell, stacks, waits
from course_lib.errors import CourseError
from course_lib.stacks import Stack

pytestmark = pytest.mark.docker

DIGIT = {"model": "digits", "inputs": [[0.0] * 64]}


@pytest.mark.parametrize("service", ["proxy", "database-door"])
def test_nginx_accepts_its_configuration(course_stack: Stack, service: str) -> None:
    said = course_stack.execute(service, "nginx", "-t")
    assert "test is successful" in said.stderr and "[warn]" not in said.stderr


# TLS


def test_a_client_that_does_not_know_the_authority_is_refused(course_stack: Stack) -> None:
    with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        httpx.get(f"{course_stack.url}/healthz", trust_env=False)


def connected(
    stack: Stack, name: str = "127.0.0.1", context: ssl.SSLContext | None = None, port: int = 0
) -> ssl.SSLSocket:
    """A connection to the front door by a client that trusts the stack's authority."""
    context = context or ssl.create_default_context(cafile=str(stack.ca))
    plain = socket.create_connection(("127.0.0.1", port or stack.port("proxy", 8443)), timeout=60)
    return context.wrap_socket(plain, server_hostname=name)


def test_a_name_that_the_certificate_does_not_have_is_refused(course_stack: Stack) -> None:
    connected(course_stack, "localhost").close()
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        connected(course_stack, "stack.example.org")


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
def test_old_tls_is_refused(course_stack: Stack) -> None:
    old = ssl.create_default_context(cafile=str(course_stack.ca))
    old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    old.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.raises(ssl.SSLError, match="PROTOCOL_VERSION"):
        connected(course_stack, context=old)


def test_plain_http_is_refused(course_stack: Stack) -> None:
    answer = httpx.get(course_stack.url.replace("https", "http") + "/healthz", trust_env=False)
    assert answer.status_code == 400 and "HTTPS" in answer.text


# Limits


def test_who_shows_no_key_or_a_wrong_one_is_refused(course_stack: Stack) -> None:
    with course_stack.http() as http:
        assert http.post("/predict", json=DIGIT).status_code == 200
        for header in ("", "Bearer wrong"):
            refused = http.post("/predict", json=DIGIT, headers={"Authorization": header})
            assert refused.status_code == 401, header


def test_a_request_that_is_too_large(course_stack: Stack) -> None:
    with course_stack.http() as http:
        assert http.post("/rag/search", content=b"x" * 1_000_000).status_code == 422  # it arrives, and makes no sense
        refused = http.post("/rag/search", content=b"x" * 1_100_000)
    assert refused.status_code == 413 and "nginx" in refused.text, "no service has to read it"


def test_one_address_that_asks_too_often(course_stack: Stack) -> None:
    """The burst is answered; what exceeds it is told so at once, and other requests go on afterwards."""
    line = b"GET /ping HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"

    def read(door: ssl.SSLSocket) -> Counter[bytes]:
        with door:
            said = b"".join(iter(lambda: door.recv(65536), b""))
        return Counter(re.findall(rb"HTTP/1.1 (\d+)", said))

    # All are connected before the first one asks, so that a slow client asks too often, too; and soon: nginx ends a
    # connection that asks nothing.
    port = course_stack.port("proxy", 8443)
    with ThreadPoolExecutor(20) as pool:
        doors = list(pool.map(lambda _: connected(course_stack, port=port), range(300)))
        for door in doors:  # all before the first is answered: that lasts as long as the machine likes
            door.sendall(line)
        counted = sum(pool.map(read, doors), Counter())
    assert set(counted) == {b"200", b"429"} and counted[b"200"] >= 100 and counted.total() == 300
    with course_stack.http() as http:
        assert http.post("/predict", json=DIGIT).status_code == 200


# What is shown


@pytest.mark.parametrize(
    "path",
    [
        "/metrics",
        "/metrics?",
        "/rag/metrics",
        "//metrics",
        "/rag//metrics",
        "/rag/../metrics",
        "/%6detrics",
        "/rag/%6detrics",
    ],
)
def test_figures_are_not_for_everybody(course_stack: Stack, path: str) -> None:
    with course_stack.http() as http:
        answer = http.get("/", extensions={"target": path.encode()})  # as it stands, not as a client tidies it up
    assert answer.status_code == 404 and "# HELP" not in answer.text


def test_nginx_does_not_say_which_it_is(course_stack: Stack) -> None:
    with course_stack.http() as http:
        answer = http.get("/metrics")
    assert answer.headers["server"] == "nginx" and "max-age" in answer.headers["strict-transport-security"]


def test_secrets_are_in_no_container_and_no_image_that_inspect_shows(course_stack: Stack) -> None:
    key_of_tls = (course_stack.secrets / "tls.key").read_text().splitlines()[1]
    containers = [one.container for one in course_stack.states()]
    images = [one.image for one in course_stack.states()]
    shown = shell.run(["docker", "inspect", *containers, *images], show=False).stdout
    shown += shell.run(
        ["docker", "history", "--no-trunc", course_stack.project.variables["RAG_IMAGE"]], show=False
    ).stdout
    shown += json.dumps(course_stack.project.config(all_profiles=True))
    assert "API_KEYS_FILE" in shown
    assert course_stack.key not in shown and key_of_tls not in shown
    assert course_stack.key not in "".join(course_stack.logs(name, 200) for name in ("proxy", "rag", "inference"))


def test_secrets_are_for_their_owner(course_stack: Stack) -> None:
    assert course_stack.secrets.stat().st_mode & 0o077 == 0
    users = course_stack.execute("proxy", "ls", "/run/secrets").output.split()
    assert users == ["tls_certificate", "tls_key"], "each service sees those it needs"


@pytest.mark.parametrize(
    "service", ["proxy", "inference", "rag", "chroma", "prometheus", "alertmanager", "blackbox", "traces"]
)
def test_nobody_is_root_or_writes_to_the_image(course_stack: Stack, service: str) -> None:
    assert course_stack.execute(service, "id", "-u").output not in ("", "0")
    root = [line.split() for line in course_stack.execute(service, "cat", "/proc/mounts").output.splitlines()]
    assert [options.split(",")[0] for _, place, _, options, *_ in root if place == "/"] == ["ro"]
    status = course_stack.execute(service, "cat", "/proc/self/status").output
    assert "CapBnd:\t0000000000000000" in status and "NoNewPrivs:\t1" in status


# What can be followed


def test_a_clients_request_id_comes_back_and_is_in_the_logs(course_stack: Stack) -> None:
    with course_stack.http() as http:
        answer = http.post("/predict", json=DIGIT, headers={"X-Request-ID": "mine-4711"})
    assert answer.headers.get_list("x-request-id") == ["mine-4711"]

    def logged() -> dict[str, object]:
        for line in course_stack.logs("proxy", 50).splitlines():
            if "mine-4711" in line:
                return dict(json.loads(line[line.index("{") :]))
        raise waits.NotYet("no such line")

    line = waits.until(logged, what="nginx' log line", timeout=60)
    assert line["request_id"] == "mine-4711" and line["path"] == "/predict" and line["status"] == 200
    assert str(line["upstream"]).endswith(":8080") and line["client"] != "-"


@pytest.mark.parametrize("bad", ["a b", "x" * 65, '"}', ""])
def test_a_request_id_that_is_none_is_replaced(course_stack: Stack, bad: str) -> None:
    with course_stack.http() as http:
        (given,) = http.get("/metrics", headers={"X-Request-ID": bad}).headers.get_list("x-request-id")
    assert len(given) == 32 and given != bad


def test_a_question_is_one_trace_through_all_services(course_stack: Stack) -> None:
    answer = course_stack.rag.answer("What is a named volume?")
    spans = stacks.trace(course_stack, answer.trace)
    assert set(spans["service"]) == {"proxy", "rag", "inference"}
    (search,) = [span for span in spans.itertuples() if span.attributes.get("peer.service") == "chroma"]
    assert (search.service, search.kind, search.name) == ("rag", "client", "search")
    whole = spans[(spans["service"] == "proxy") & (spans["start_ms"] == spans["start_ms"].min())].iloc[0]
    end = whole["start_ms"] + whole["duration_ms"]
    # Ends have no order: the answer may be out before who gave it has ended its span. nginx' clock ticks in milliseconds.
    assert (spans["start_ms"] <= end + 2).all(), "the front door's span holds all others' beginnings"


def test_a_clients_own_trace_goes_on(course_stack: Stack) -> None:
    mine = "4bf92f3577b34da6a3ce929d0e0e4736"
    with course_stack.http() as http:
        answer = http.post("/predict", json=DIGIT, headers={"traceparent": f"00-{mine}-00f067aa0ba902b7-01"})
    assert answer.headers["traceparent"].split("-")[1] == mine
    spans = stacks.trace(course_stack, mine, services=("proxy", "inference"), asked=())
    assert "00f067aa0ba902b7" not in set(spans.get("span_id", [])), "that span is the client's to send"


def test_a_trace_that_nobody_sent_says_so(course_stack: Stack) -> None:
    with pytest.raises(CourseError, match="no span of it has arrived"):
        stacks.trace(course_stack, "0" * 31 + "1", timeout=0.5)
    with pytest.raises(CourseError, match="without a trace id"):
        stacks.trace(course_stack, "")
