"""Under fault: clients that dawdle, crowd or vanish, a process or an engine that freezes, a clock that jumps, prompts of 10 MB."""

import asyncio
import json
import re
import resource
import selectors
import socket
import struct
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack, closing, contextmanager, suppress
from functools import partial
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from conftest import MODELS, Server, free_port, from_package, frozen, wait_for

QUESTION = {"messages": [{"role": "user", "content": "What is a Docker image?"}]}
END = json.loads((MODELS / "tutor/2/onnx/genai_config.json").read_text())["model"]["eos_token_id"]
LONG = {**QUESTION, "max_tokens": 512, "temperature": 2, "seed": 7, "logit_bias": {END: -100}, "stream": True}
CROWD = 1000


def value(server: Server, series: str) -> float:
    """One series of /metrics; 0 where it is not there."""
    found = re.search(rf"^{re.escape(series)} (\S+)$", server.client.get("/metrics").text, re.MULTILINE)
    return float(found[1]) if found else 0.0


def busy(server: Server) -> float:
    """Texts that run or wait."""
    labels = '{model="tutor",version="2"}'
    return value(server, f"inference_running_requests{labels}") + value(server, f"inference_waiting_requests{labels}")


def request(path: str, body: object = None, *headers: str, sent: int | None = None) -> bytes:
    """An HTTP request as bytes, cut after ``sent`` bytes of its body."""
    method, content = "GET", b""
    if body is not None:
        method, content = "POST", json.dumps(body).encode()
        headers = ("Content-Type: application/json", f"Content-Length: {len(content)}", *headers)
    head = [f"{method} {path} HTTP/1.1", "Host: x", *headers, "", ""]
    return "\r\n".join(head).encode() + content[:sent]


def connect(server: Server) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=30)


def until_closed(connections: list[socket.socket], seconds: float, drip: bytes = b"") -> list[bytes]:
    """What came on each until the server closed it; ``drip`` is sent on all of them now and then. Raises TimeoutError."""
    received = dict.fromkeys(connections, b"")
    connection: socket.socket
    end = time.monotonic() + seconds
    with selectors.DefaultSelector() as selector:
        for connection in connections:
            selector.register(connection, selectors.EVENT_READ, connection)
        while selector.get_map():
            if time.monotonic() > end:
                raise TimeoutError(f"{len(selector.get_map())} connections are still open")
            for key, _ in selector.select(0.2):
                connection = key.data
                try:
                    chunk = connection.recv(65536)
                except ConnectionError:  # closed while something of ours was still on its way
                    chunk = b""
                received[connection] += chunk
                if not chunk:
                    selector.unregister(connection)
            for key in [*selector.get_map().values()] if drip else ():
                with suppress(ConnectionError):  # closed: what came before is still to be read
                    key.data.send(drip)
    return list(received.values())


def at_once(server: Server, requests: list[bytes]) -> list[bytes]:
    """Each is sent on a connection of its own, and the server sees them in one moment; what came until it closed them."""
    with ExitStack() as held:
        with frozen(server.process):
            crowd = [held.enter_context(closing(connect(server))) for _ in requests]
            for connection, sent in zip(crowd, requests, strict=True):
                connection.sendall(sent)
        return until_closed(crowd, 120)


def statuses(answers: list[bytes]) -> Counter[int]:
    return Counter(int(answer.split(b" ", 2)[1]) for answer in answers)


@contextmanager
def open_files(soft: int) -> Iterator[None]:
    """Another soft limit of open files, which a process that is started meanwhile inherits."""
    before, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, hard), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (before, hard))


@pytest.fixture(scope="module")
def hasty() -> Iterator[Server]:
    """A server that waits a second for what a client has to send or to take."""
    with Server(MODEL_PATH=MODELS / "digits", RECEIVE_TIMEOUT_SECONDS=1) as running:
        yield running
        assert "Traceback" not in running.output()


# Slow clients


SLOW_HEADS = {  # what is sent at first, and then again and again
    "nothing": (b"", b""),
    "a head": (b"GET /health HTTP/1.1\r\nHost: x\r\nX-Slow: ", b"a"),
    "a second head": (request("/health") + b"GET ", b"/"),
    "empty lines": (request("/health"), b"\r\n"),
}


def test_slow_heads_are_closed(hasty: Server, samples: list[dict[str, Any]]) -> None:
    with ExitStack() as held, ThreadPoolExecutor(len(SLOW_HEADS)) as pool:
        ends = {}
        for what, (sent, drip) in SLOW_HEADS.items():
            dawdlers = []
            for _ in range(60):
                dawdlers.append(held.enter_context(closing(connect(hasty))))
                dawdlers[-1].sendall(sent)  # before its second is over
            ends[what] = pool.submit(until_closed, dawdlers, 60, drip)
        while not all(end.done() for end in ends.values()):
            reply = hasty.client.post("/predict", json={"inputs": samples[0]["pixels"]})
            assert reply.json()["predicted_class"] == str(samples[0]["label"])
        for what, end in ends.items():
            if SLOW_HEADS[what][0].startswith(request("/health")):
                assert statuses(end.result()) == {200: 60}, what
            else:
                assert set(end.result()) == {b""}, what


def test_slow_bodies_get_408(hasty: Server, samples: list[dict[str, Any]]) -> None:
    body = {"inputs": [0] * 3000}
    with ExitStack() as held, ThreadPoolExecutor(1) as pool:
        dawdlers = []
        for _ in range(100):
            dawdlers.append(held.enter_context(closing(connect(hasty))))
            dawdlers[-1].sendall(request("/predict", body, sent=20))  # before its second is over
        ends = pool.submit(until_closed, dawdlers, 60, b" ")
        while not ends.done():
            assert hasty.client.post("/predict", json={"inputs": samples[0]["pixels"]}).status_code == 200
        answers = ends.result()
    assert statuses(answers) == {408: 100}
    assert b'"message": "The body was not here after 1 s: send less at a time, or faster."' in answers[0]
    assert b"connection: close" in answers[0]
    assert value(hasty, "http_requests_in_flight") == 1  # the question itself


def test_a_connection_may_rest_between_requests(hasty: Server) -> None:
    with closing(HTTPConnection("127.0.0.1", hasty.port)) as connection:
        ask_again(connection)
        time.sleep(2.5)
        ask_again(connection)


def ask_again(connection: HTTPConnection) -> None:
    """Another request on the same connection; an error where that has been closed."""
    connection.request("GET", "/health")
    with connection.getresponse() as reply:
        assert reply.status == 200
        reply.read()


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="TCP_USER_TIMEOUT is Linux's")
def test_a_client_that_takes_nothing_is_dropped(hasty: Server) -> None:
    """It asks for more than the kernel's buffers hold and never reads, so that the answer can't end."""
    with closing(socket.socket()) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        connection.connect(("127.0.0.1", hasty.port))
        end = time.monotonic() + 20
        with pytest.raises(ConnectionError):
            while time.monotonic() < end:
                connection.sendall(request("/openapi.json"))
                time.sleep(0.01)
    assert value(hasty, "http_requests_in_flight") == 1  # the question itself


def test_a_grpc_message_that_never_comes() -> None:
    def silence() -> Iterator[bytes]:
        asked.wait(20)
        yield b""

    asked = threading.Event()
    with (
        Server(MODEL_PATH=MODELS / "digits", GRPC_PORT=free_port(), RECEIVE_TIMEOUT_SECONDS=0.5) as server,
        grpc.insecure_channel(f"127.0.0.1:{server.settings['GRPC_PORT']}") as channel,
    ):
        call = channel.stream_unary("/inference.GRPCInferenceService/ModelInfer")
        with pytest.raises(grpc.RpcError) as late:
            call(silence(), timeout=20)
        asked.set()
        assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert "The body was not here after 0.5 s" in late.value.details()


# Crowds


def test_a_thousand_connections_at_once(samples: list[dict[str, Any]]) -> None:
    """Each gets its answer or 429 with a time to come back at, from a server that was started with few files; a row is answered meanwhile."""
    with open_files(256):
        server = Server()
    with server, open_files(CROWD + 500), ExitStack() as held, ThreadPoolExecutor(1) as pool:
        crowd = [held.enter_context(closing(connect(server))) for _ in range(CROWD)]
        asked = request("/v1/chat/completions", {**QUESTION, "max_tokens": 4}, "Connection: close")
        for connection in crowd:
            connection.sendall(asked)
        ends = pool.submit(until_closed, crowd, 120)
        while not ends.done():
            assert server.client.post("/predict", json={"inputs": samples[0]["pixels"]}).status_code == 200
        answers = ends.result()
        found = statuses(answers)
        assert found.keys() <= {200, 429}
        assert found[200] >= 256, found
        assert all(b"retry-after: " in answer for answer in answers if answer.startswith(b"HTTP/1.1 429"))
        assert busy(server) == 0
        assert server.terminate() == 0


def test_more_connections_than_files(samples: list[dict[str, Any]]) -> None:
    """The rest is turned away, and when those who hold the files without asking are closed, everybody is answered again."""
    with Server(MODEL_PATH=MODELS / "digits", RECEIVE_TIMEOUT_SECONDS=1) as server:
        files = len(list(Path(f"/proc/{server.process.pid}/fd").iterdir())) + 30
        resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (files, files))
        assert at_once(server, [b""] * 100 + [request("/health")])[-1] == b""
        row = {"inputs": samples[0]["pixels"]}
        reply = httpx.post(f"{server.url}/predict", json=row, timeout=30)
        assert reply.json()["predicted_class"] == str(samples[0]["label"])
        assert server.terminate() == 0


def test_clients_that_vanish_in_mid_stream(server: Server) -> None:
    """By a FIN or by a RST: their slots are free at once, and a stream that runs beside them is whole."""
    cancelled = 'inference_errors_total{model="tutor",reason="cancelled",version="2"}'
    tokens = 'inference_batch_size_sum{model="tutor",version="2"}'
    before = value(server, cancelled)
    honest = {**QUESTION, "max_tokens": 40, "stream": True}
    alone = server.client.post("/v1/chat/completions", json=honest).text
    with ThreadPoolExecutor(1) as pool, ExitStack() as held:
        computed = value(server, tokens)
        crowd = [held.enter_context(closing(connect(server))) for _ in range(40)]
        for connection in crowd:
            connection.sendall(request("/v1/chat/completions", LONG))
        assert crowd[0].recv(65536).startswith(b"HTTP/1.1 200")
        beside = pool.submit(httpx.post, f"{server.url}/v1/chat/completions", json=honest, timeout=60)
        for connection in crowd[::2]:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        held.close()
        assert texts(beside.result().text) == texts(alone)
    wait_for(lambda: busy(server) == 0, 10)
    assert value(server, cancelled) > before + 20  # who came first may have had the whole answer
    assert value(server, tokens) < computed + 40 * 512 / 2


def texts(stream: str) -> list[str]:
    """The pieces of text in a stream that came to its end."""
    lines = [line.removeprefix("data: ") for line in stream.splitlines() if line]
    assert lines[-1] == "[DONE]", lines[-1]
    return [json.loads(line)["choices"][0]["delta"].get("content") for line in lines[:-1]]


# What freezes


def test_a_frozen_process_goes_on_where_it_was(samples: list[dict[str, Any]]) -> None:
    """Requests that were under way or came meanwhile are answered; no engine is taken for stuck."""
    with Server(STALL_SECONDS=3) as server, ThreadPoolExecutor(17) as pool:
        whole = server.client.post("/v1/chat/completions", json=LONG).text
        began = threading.Event()
        streamed = pool.submit(stream, server, LONG, began)
        assert began.wait(20)
        with frozen(server.process):
            row = {"inputs": samples[0]["pixels"]}
            waiting = [pool.submit(httpx.get, f"{server.url}/health", timeout=60) for _ in range(8)]
            waiting += [pool.submit(httpx.post, f"{server.url}/predict", json=row, timeout=60) for _ in range(8)]
            with pytest.raises(httpx.ReadTimeout):
                httpx.get(f"{server.url}/health", timeout=4)
        assert texts(streamed.result()) == texts(whole)
        assert {each.result().status_code for each in waiting} == {200}
        wait_for(lambda: server.client.get("/ready").status_code == 200, 5)


def test_an_engine_is_not_blamed_for_a_pause_of_the_process() -> None:
    """Silent for longer than it may be counts only while somebody was awake to look."""
    from inference_server.engines.loop import EngineLoop

    go_on = threading.Event()

    class Held(EngineLoop):
        def turn(self) -> bool:
            return go_on.wait(30)

        def has_work(self) -> bool:
            return True

        def abandon(self, why: str) -> None:
            pass

    loop = Held("held", stall_seconds=1)
    loop.start()
    try:
        time.sleep(1.2)
        assert loop.vitals().alive
        blamed = re.compile(r"the engine's loop has not moved for \d+ s")
        wait_for(lambda: blamed.fullmatch(loop.vitals().why) is not None, 20)  # a look that comes late begins anew
    finally:
        go_on.set()
        loop.close()


def stream(server: Server, body: dict[str, Any], began: threading.Event | None = None) -> str:
    """A streamed answer; ``began`` is set at its first piece."""
    began = began or threading.Event()
    lines = []
    with httpx.stream("POST", f"{server.url}/v1/chat/completions", json=body, timeout=60) as reply:
        for line in reply.iter_lines():
            lines.append(line)
            began.set()
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("stuck", "path", "asked", "why"),
    [
        ("digits:2", "/predict", {"inputs": [0] * 64}, "the engine's loop has not moved for "),
        ("tutor:2", "/predict", {"inputs": "Hi", "max_tokens": 2}, "the engine's loop has not moved for "),
        (
            "embedder:1",
            "/v1/embeddings",
            {"input": "Hi", "model": "embedder"},
            "the engine has been at the same texts ",
        ),
    ],
)
def test_an_engine_that_is_stuck(stuck: str, path: str, asked: dict[str, Any], why: str) -> None:
    """Its requests end in time, /health says it, the other models answer; and when it moves again all is well.

    In this process, because only here a thread of the server can be held.
    """
    from inference_server.app import create_app
    from inference_server.engines import standstill
    from inference_server.models import find_models
    from inference_server.registry import Registry
    from inference_server.serving import Phase, Serving
    from inference_server.settings import Settings

    serving = Serving(Settings(stall_seconds=3, request_timeout_seconds=4.5))
    serving.loaded = Registry.load(find_models(MODELS), serving.settings, serving.metrics)
    serving.phase = Phase.READY
    engine: Any = {model.spec.id: model for model in serving.loaded.models}[stuck].engine
    name = "_run" if stuck.startswith("embedder") else "turn"
    parts = getattr(engine, "instances", [engine])
    go_on = threading.Event()

    def held(turn: Callable[..., Any], *arguments: Any) -> Any:
        go_on.wait(60)
        return turn(*arguments)

    async def watch() -> None:
        while True:  # as the server's own loop does
            standstill.look()
            await asyncio.sleep(0.1)

    async def until(client: httpx.AsyncClient, probe: str, status: int) -> httpx.Response:
        """Its first answer with this status: a process that got no CPU for a second blames nobody, for a second."""
        end = time.monotonic() + 30
        while (reply := await client.get(probe)).status_code != status and time.monotonic() < end:
            await asyncio.sleep(0.05)
        return reply

    async def scene() -> None:
        watching = asyncio.ensure_future(watch())
        transport = httpx.ASGITransport(app=create_app(serving))
        async with httpx.AsyncClient(transport=transport, base_url="http://server", timeout=30) as client:
            for part in parts:
                setattr(part, name, partial(held, getattr(part, name)))
            late = await client.post(path, json=asked)
            assert (late.status_code, late.json()["error"]["code"]) == (504, "timeout")
            for probe in ("/health", "/ready"):
                reply = await until(client, probe, 503)
                assert reply.status_code == 503
                assert [problem.partition(why)[0] for problem in reply.json()["problems"]] == [f"{stuck}: "]
            for other, body in (("digits:1", [0] * 64), ("tutor:1", "Hi")):
                reply = await client.post("/predict", json={"inputs": body, "model": other, "max_tokens": 2})
                assert reply.status_code == 200
            go_on.set()
            for probe in ("/health", "/ready"):
                assert (await until(client, probe, 200)).status_code == 200
            assert (await client.post(path, json=asked)).status_code == 200
        watching.cancel()

    try:
        asyncio.run(scene())
    finally:
        go_on.set()
        for model in serving.loaded.models:
            model.engine.close()


# The clock


def faketime() -> str | None:
    """The library that turns a process's clock."""
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    return str(found[0]) if found else None


@pytest.mark.skipif(sys.platform != "linux", reason="clocks are turned by libfaketime in LD_PRELOAD, Linux's way")
def test_the_clock_jumps(tmp_path: Path, samples: list[dict[str, Any]]) -> None:
    """A day ahead, then two back, as when a machine without a clock hears of the time: nothing is late, stuck or early for it."""
    clock = tmp_path / "clock"
    clock.write_text("+0")
    turned = {
        "LD_PRELOAD": from_package("faketime", faketime),
        "FAKETIME_TIMESTAMP_FILE": clock,
        "FAKETIME_NO_CACHE": 1,
        "FAKETIME_DONT_FAKE_MONOTONIC": 1,
    }
    body = {**LONG, "max_tokens": 24}  # each look at a turned clock takes its time
    limits = {
        "SLOTS": 1,
        "MAX_QUEUE": 2,
        "STALL_SECONDS": 10,
        "REQUEST_TIMEOUT_SECONDS": 60,
        "RECEIVE_TIMEOUT_SECONDS": 5,
    }
    with (
        Server(**turned, **limits) as server,
        ThreadPoolExecutor(3) as pool,
        closing(HTTPConnection("127.0.0.1", server.port)) as resting,
    ):
        ask_again(resting)
        whole = server.client.post("/v1/chat/completions", json=body).text
        for offset, days in (("+1d", 1), ("-1d", -1)):
            running = [pool.submit(stream, server, body) for _ in range(3)]
            for _ in zip(range(2), as_completed(running, 60), strict=False):
                pass  # now it knows how long one takes
            clock.write_text(offset)
            assert server.client.get("/health").status_code == 200
            more = at_once(server, [request("/v1/chat/completions", body, "Connection: close")] * 8)
            assert statuses(more).keys() == {200, 429}
            retries = [re.search(rb"\r\nretry-after: (\d+)\r\n", reply) for reply in more if b" 429 " in reply[:20]]
            assert all(found and 1 <= int(found[1]) < 60 for found in retries)
            assert server.client.post("/predict", json={"inputs": samples[0]["pixels"]}).status_code == 200
            assert all(texts(each.result()) == texts(whole) for each in running)
            told = server.client.post("/v1/chat/completions", json={**QUESTION, "max_tokens": 1}).json()["created"]
            assert abs(told - time.time() - days * 86_400) < 60  # it did see the jump
        ask_again(resting)
        assert server.terminate() == 0


# What is sent


@pytest.fixture(scope="module")
def generous() -> Iterator[Server]:
    """A server that takes bodies of 12 MB."""
    with Server(MAX_BODY_BYTES=12_000_000) as running:
        yield running
        assert "Traceback" not in running.output()


@pytest.mark.parametrize(
    "letters", ["What is a Docker image? ", "x", "7", "\u6f22"], ids=["words", "x", "digits", "han"]
)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/predict", "/v1/embeddings"])
def test_prompts_of_10_mb(generous: Server, path: str, letters: str) -> None:
    """Refused without having been tokenised as a whole, which would hold up everybody for seconds and cost a gigabyte."""
    text = letters * (10_000_000 // len(letters.encode()))
    bodies: dict[str, dict[str, Any]] = {
        "/v1/chat/completions": {"messages": [{"role": "user", "content": text}]},
        "/v1/completions": {"prompt": text},
        "/predict": {"inputs": text},
        "/v1/embeddings": {"input": text, "model": "embedder"},
    }
    before = memory(generous, "VmRSS")
    reply = generous.client.post(path, content=json.dumps(bodies[path], ensure_ascii=False).encode(), headers=JSON)
    one_word = path == "/v1/embeddings" and letters.strip() == letters
    assert reply.status_code == (200 if one_word else 422 if path == "/predict" else 400), reply.text[:300]
    if not one_word:
        assert "and this server takes 102" in reply.json()["error"]["message"]
    assert memory(generous, "VmHWM") - before < 250, "MB"


JSON = {"Content-Type": "application/json"}


def memory(server: Server, name: str) -> float:
    """VmRSS: the process's memory in MB; VmHWM: the most it ever had."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    found = re.search(rf"^{name}:\s+(\d+) kB$", status, re.MULTILINE)
    assert found
    return int(found[1]) / 1000


DEEP = "[" * 100_000
NONSENSE: dict[str, str | bytes] = {
    "deep": f'{{"inputs": {DEEP}, "messages": {DEEP}, "prompt": {DEEP}, "input": {DEEP}, "instances": {DEEP}',
    "deep and whole": '{"inputs": ' + "[" * 5000 + "]" * 5000 + "}",
    "bytes": b'{"inputs": "\xff\xfe", "messages": [{"role": "user", "content": "\xc3"}], "prompt": "\x80", "input": "\xff"}',
    "half a character": '{"inputs": "\\ud800", "prompt": "\\ud800", "input": "\\ud800", "messages": [{"role": "user", "content": "\\ud800"}]}',
    "numbers": '{"inputs": 1e999, "prompt": -1e999, "input": 1e999, "instances": 1e999, "messages": 1e999}',
    "long number": f'{{"inputs": {"9" * 5000}, "prompt": {"9" * 5000}, "input": {"9" * 5000}, "messages": {"9" * 5000}}}',
    "not a number": '{"inputs": NaN, "prompt": NaN, "input": NaN, "instances": NaN, "messages": NaN}',
    "null": "null",
    "a string": '"x"',
    "twice": '{"inputs": "x", "inputs": 1, "prompt": "x", "prompt": {}, "messages": [], "messages": {}, "input": 1, "input": {}}',
}


@pytest.mark.parametrize("what", NONSENSE)
def test_nonsense_is_refused_on_every_route(server: Server, what: str) -> None:
    routes = [path for path, methods in server.client.get("/openapi.json").json()["paths"].items() if "post" in methods]
    assert len(routes) >= 8
    sent = NONSENSE[what]
    content = sent.encode() if isinstance(sent, str) else sent
    for route in routes:
        path = re.sub(r"\{.*?\}", lambda name: "1" if "version" in name[0] else "digits", route)
        reply = server.client.post(path, content=content, headers=JSON)
        assert reply.status_code in (400, 404, 413, 422), (path, reply.status_code, reply.text[:300])
        error = reply.json()["error"]
        assert (error if isinstance(error, str) else error["message"]).endswith((".", ".data"))
    assert "Traceback" not in server.output()
