"""How the process behaves: limits, ids, logs, health, and its end."""

import json
import re
import shutil
import signal
import socket
import subprocess
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import MODELS, Server, free_port, from_package, frozen, run, wait_for

CHAT = {"messages": [{"role": "user", "content": "What is a Docker image?"}], "max_tokens": 5}


def test_request_ids(server: Server) -> None:
    assert server.client.get("/health", headers={"X-Request-ID": "abc-1"}).headers["x-request-id"] == "abc-1"
    made = server.client.get("/health").headers["x-request-id"]
    assert re.fullmatch("[0-9a-f]{32}", made)
    for bad in ("a b", "x" * 200, '"'):
        assert server.client.get("/health", headers={"X-Request-ID": bad}).headers["x-request-id"] != bad
    assert server.client.get("/nothing", headers={"X-Request-ID": "abc-2"}).headers["x-request-id"] == "abc-2"


def test_log_lines_are_json_and_hold_no_prompt(server: Server) -> None:
    secret = "zanzibar"
    body = {**CHAT, "messages": [{"role": "user", "content": f"What is {secret}?"}]}
    server.client.post("/v1/chat/completions", json=body, headers={"X-Request-ID": "log-1"})
    server.client.post("/v1/chat/completions", json={**body, "stream": True}, headers={"X-Request-ID": "log-2"})
    server.client.post("/predict", json={"inputs": secret, "version": 9}, headers={"X-Request-ID": "log-3"})
    wait_for(lambda: "log-3" in server.output(), 5)
    lines = {line.get("request_id"): line for line in server.lines()}
    for name in ("log-1", "log-2"):
        line = lines[name]
        assert (line["model"], line["version"], line["status"], line["route"]) == (
            "tutor",
            "2",
            200,
            "/v1/chat/completions",
        )
        assert 0 < line["completion_tokens"] <= 5
        assert line["ms"] > 0
    assert lines["log-3"]["error"] == "model_not_found"
    assert secret not in server.output()


def test_an_answer_comes_in_one_piece(server: Server) -> None:
    """Head and body in one packet, while the engine works for others: half of them came in two before that was seen to."""
    body = json.dumps({**CHAT, "stream": True, "max_tokens": 400, "logit_bias": {"2": -100}}).encode()
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n"
    )
    whole = json.dumps(CHAT).encode()
    with (
        closing(socket.create_connection(("127.0.0.1", server.port), timeout=30)) as streaming,
        closing(socket.create_connection(("127.0.0.1", server.port), timeout=30)) as connection,
    ):
        streaming.sendall(head.format(len(body)).encode() + body)
        # a stream's head doesn't wait for its end
        assert b"text/event-stream" in streaming.recv(4096)
        for _ in range(50):
            connection.sendall(head.format(len(whole)).encode() + whole)
            received, _, text = connection.recv(65536).partition(b"\r\n\r\n")
            assert received.startswith(b"HTTP/1.1 200 ") and json.loads(text)["usage"]["completion_tokens"] <= 5


def test_body_limit(server: Server) -> None:
    large = b'{"inputs": "' + b"x" * 2_000_000 + b'"}'
    reply = httpx.post(f"{server.url}/predict", content=large, headers={"Content-Type": "application/json"})
    assert reply.status_code == 413
    assert reply.json()["error"]["message"] == "The body is larger than 1,048,576 bytes: send less at a time."
    assert reply.headers["x-request-id"]

    def pieces() -> Any:
        for _ in range(40):
            yield b"x" * 65536

    # Chunked: nobody said how much would come. It may be refused and closed while it is still being sent.
    with suppress(httpx.WriteError):
        assert httpx.post(f"{server.url}/predict", content=pieces()).status_code == 413
    assert server.client.get("/health").status_code == 200


@pytest.mark.parametrize(
    ("content", "kind", "status", "said"),
    [
        (b'{"inputs": ', "application/json", 422, "The body is not JSON"),
        (b'{"inputs": "\xff"}', "application/json", 400, "The body can't be read as JSON in UTF-8."),
        (b"[" * 100_000, "application/json", 400, "The body can't be read as JSON in UTF-8."),
        (b"[1]", "application/json", 422, "The body: Input should be a valid dictionary"),
        (b"", "application/json", 422, "The body: Field required"),
        (b'{"inputs": 1}', "application/x-www-form-urlencoded", 415, "send JSON with Content-Type: application/json"),
        (b'{"inputs": 1}', "text/plain", 415, "send JSON with Content-Type: application/json"),
    ],
)
def test_bad_bodies(server: Server, content: bytes, kind: str, status: int, said: str) -> None:
    reply = server.client.post("/predict", content=content, headers={"Content-Type": kind})
    assert reply.status_code == status, reply.text
    assert said in reply.json()["error"]["message"]


def test_unknown_routes_and_methods(server: Server) -> None:
    assert server.client.get("/nothing").json()["error"]["code"] == "not_found"
    reply = server.client.get("/predict")
    assert reply.status_code == 405
    assert "POST" in reply.headers["allow"]


def test_metrics(server: Server, samples: list[dict[str, Any]]) -> None:
    def value(series: str) -> float:
        for line in server.client.get("/metrics").text.splitlines():
            if line.startswith(f"{series} "):
                return float(line.rsplit(" ", 1)[1])
        return 0.0

    tutor, digits = 'model="tutor",version="2"', 'model="digits",version="1"'
    names = [
        f"inference_requests_total{{{tutor}}}",
        f"inference_duration_seconds_count{{{tutor}}}",
        f"inference_time_to_first_token_seconds_count{{{tutor}}}",
        'inference_errors_total{model="tutor",reason="cancelled",version="2"}',
    ]
    before = [value(name) for name in names]
    tokens = value(f"inference_completion_tokens_total{{{tutor}}}")
    answer = server.client.post("/v1/chat/completions", json=CHAT).json()
    server.client.post("/v1/chat/completions", json={**CHAT, "stream": True})
    assert [value(name) for name in names] == [before[0] + 2, before[1] + 2, before[2] + 2, before[3]]
    assert value(f"inference_completion_tokens_total{{{tutor}}}") == tokens + 2 * answer["usage"]["completion_tokens"]
    rows = value(f"inference_requests_total{{{digits}}}")
    server.client.post("/predict", json={"inputs": samples[0]["pixels"], "model": "digits:1"})
    assert value(f"inference_requests_total{{{digits}}}") == rows + 1
    text = server.client.get("/metrics").text
    assert 'inference_model_info{engine="onnx",kind="generate",model="tutor",version="2"} 1.0' in text
    assert 'http_requests_total{method="POST",route="/v1/chat/completions",status="200"}' in text
    assert "_created" not in text
    assert "process_resident_memory_bytes" in text


def test_metrics_of_speed_and_batches(server: Server) -> None:
    def value(series: str) -> float:
        found = re.search(rf"^{re.escape(series)} (\S+)$", server.client.get("/metrics").text, re.MULTILINE)
        return float(found[1]) if found else 0.0

    labels = 'model="tutor",version="1"'
    names = (f"inference_batch_size_count{{{labels}}}", f"inference_batch_size_sum{{{labels}}}")
    steps, texts = map(value, names)
    paces = value(f"inference_time_per_output_token_seconds_count{{{labels}}}")
    batch = {
        "inputs": ["What is a Docker image?"] * 8,
        "model": "tutor:1",
        "max_tokens": 12,
        "temperature": 1,
        "seed": 5,
    }
    replies = server.client.post("/batch_predict", json=batch).json()["predictions"]
    written = sum(reply["usage"]["completion_tokens"] for reply in replies)
    # The first token of each comes from its prompt; each step gives one to everybody in the batch.
    assert value(names[1]) - texts in range(written - 8, written + 1)
    assert written / 8 - 1 <= value(names[0]) - steps < written - 8
    assert value(f"inference_time_per_output_token_seconds_count{{{labels}}}") == paces + 8
    below = [value(f'inference_batch_size_bucket{{le="{top}",{labels}}}') for top in ("1.0", "8.0", "+Inf")]
    assert below == sorted(below)
    assert below[-1] == value(names[0])
    rows = [value(f'inference_batch_size_{part}{{model="digits",version="2"}}') for part in ("count", "sum")]
    server.client.post("/batch_predict", json={"inputs": [[0] * 64] * 50, "model": "digits:2"})
    after = [value(f'inference_batch_size_{part}{{model="digits",version="2"}}') for part in ("count", "sum")]
    assert after == [rows[0] + 1, rows[1] + 50]


def test_promtool_finds_nothing_to_say(server: Server) -> None:
    promtool = from_package("promtool", lambda: shutil.which("promtool"))
    text = server.client.get("/metrics").text
    checked = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, text=True, timeout=30)
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")


def test_models_page(server: Server) -> None:
    listed = server.client.get("/models").json()["models"]
    assert [(model["id"], model["default_version"]) for model in listed] == [
        ("digits:1", False),
        ("digits:2", True),
        ("embedder:1", True),
        ("tutor:1", False),
        ("tutor:2", True),
    ]
    assert listed[1]["card"]["metrics"]["accuracy"] > listed[0]["card"]["metrics"]["accuracy"]


def test_a_client_that_hangs_up_frees_the_engine(server: Server) -> None:
    def gauge(name: str) -> float:
        found = re.search(
            rf'^{name}{{model="tutor",version="2"}} (\S+)$', server.client.get("/metrics").text, re.MULTILINE
        )
        return float(found[1]) if found else 0.0

    cancelled = r'inference_errors_total{model="tutor",reason="cancelled",version="2"} '
    body = json.dumps({"inputs": ["What is a Docker image?"] * 200, "max_tokens": 500, "temperature": 2}).encode()
    with closing(socket.create_connection(("127.0.0.1", server.port))) as connection:
        head = f"POST /batch_predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body)
        wait_for(lambda: gauge("inference_running_requests") > 0, 10)
    wait_for(lambda: gauge("inference_running_requests") + gauge("inference_waiting_requests") == 0, 5)
    assert cancelled in server.client.get("/metrics").text


def test_probe(server: Server) -> None:
    well = run("health", PORT=server.port)
    assert (well.returncode, len(well.stdout.splitlines()), well.stderr) == (0, 1, "")
    assert "healthy: http://127.0.0.1:" in well.stdout
    assert run("health", "--ready", PORT=server.port).returncode == 0
    nobody = run("health", PORT=free_port())
    assert nobody.returncode == 1
    assert "unhealthy: " in nobody.stdout
    assert run("health", PORT="x").returncode == 1
    assert run("unknown").returncode == 2
    assert run("--version").stdout.strip()


def test_probe_of_something_else() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        silent = run("health", PORT=listener.getsockname()[1])
        assert silent.returncode == 1
        assert "did not answer within 3 s" in silent.stdout


def test_a_frozen_server_is_unhealthy_and_recovers() -> None:
    with Server(MODEL_PATH=MODELS / "digits") as server:
        with frozen(server.process):
            assert run("health", PORT=server.port).returncode == 1
        assert run("health", PORT=server.port).returncode == 0


def test_nothing_is_reported_to_onnxruntimes_maker(tmp_path: Path, samples: list[dict[str, Any]]) -> None:
    """Else it would make itself an id and a queue of events in the home folder, and send them."""
    with Server(HOME=tmp_path) as server:
        assert server.client.post("/predict", json={"inputs": samples[0]["pixels"]}).status_code == 200
    assert list(tmp_path.rglob("*")) == []


NEVER = 3600  # seconds: terminate gives up long before


def test_sigterm_at_rest() -> None:
    with Server(MODEL_PATH=MODELS / "digits", DRAIN_SECONDS=NEVER) as server:
        assert server.terminate() == 0
        assert [line["message"] for line in server.lines()][-2:] == ["draining", "stopped"]


def half_sent(server: Server, body: bytes) -> socket.socket:
    """A request the server has begun and can't finish before its second half comes."""
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=20)
    head = f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    connection.sendall(head.encode() + body[:20])
    in_flight = re.compile(r"^http_requests_in_flight 2\.0$", re.MULTILINE)  # this one and the question itself
    wait_for(lambda: bool(in_flight.search(server.client.get("/metrics").text)), 10)
    return connection


def test_sigterm_finishes_what_runs(samples: list[dict[str, Any]]) -> None:
    body = json.dumps({"inputs": samples[0]["pixels"]}).encode()
    waits = {"RECEIVE_TIMEOUT_SECONDS": NEVER, "DRAIN_SECONDS": NEVER}
    with Server(MODEL_PATH=MODELS / "digits", **waits) as server, closing(half_sent(server, body)) as connection:
        server.process.send_signal(signal.SIGTERM)
        wait_for(lambda: httpx.get(f"{server.url}/ready", timeout=30).status_code == 503, 20)
        assert httpx.get(f"{server.url}/ready", timeout=30).json() == {
            "ready": False,
            "phase": "draining",
            "models": ["digits:1", "digits:2"],
        }
        assert httpx.get(f"{server.url}/health", timeout=30).status_code == 200
        refused = httpx.post(f"{server.url}/predict", json={"inputs": samples[0]["pixels"]}, timeout=30)
        assert refused.status_code == 503
        assert refused.headers["retry-after"] == "1"
        assert refused.headers["connection"] == "close"
        assert refused.json()["error"]["message"] == "The server is stopping: send this to another one."
        connection.sendall(body[20:])
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
        assert answer.startswith(b"HTTP/1.1 200")
        assert f'"predicted_class":"{samples[0]["label"]}"'.encode() in answer
        assert server.process.wait(timeout=60) == 0


def test_who_keeps_a_connection_is_answered_and_sent_away(samples: list[dict[str, Any]]) -> None:
    """Without the delay the next request on it would be refused: nobody but this server can tell its client to go.

    A second signal does not wait for those who leave.
    """
    question = {"inputs": samples[0]["pixels"]}
    with Server(MODEL_PATH=MODELS / "digits", SHUTDOWN_DELAY_SECONDS=NEVER) as server, httpx.Client() as kept:
        assert "connection" not in kept.post(f"{server.url}/predict", json=question).headers
        server.process.send_signal(signal.SIGTERM)
        wait_for(lambda: httpx.get(f"{server.url}/ready", timeout=30).status_code == 503, 20)
        assert httpx.get(f"{server.url}/ready", timeout=30).json()["phase"] == "leaving"
        for client in (kept, httpx):
            answer = client.post(f"{server.url}/predict", json=question)
            assert (answer.status_code, answer.headers["connection"]) == (200, "close")
        assert server.terminate() == 0


def test_the_delay_has_an_end() -> None:
    with Server(MODEL_PATH=MODELS / "digits", SHUTDOWN_DELAY_SECONDS=1) as server:
        started = time.monotonic()
        assert server.terminate() == 0
        assert time.monotonic() - started >= 1
        assert [line["message"] for line in server.lines()][-3:] == ["leaving", "draining", "stopped"]


def test_sigterm_does_not_wait_for_ever() -> None:
    with (
        Server(MODEL_PATH=MODELS / "digits", DRAIN_SECONDS=0.5, RECEIVE_TIMEOUT_SECONDS=NEVER) as server,
        closing(half_sent(server, b"{" + b" " * 50)),
    ):
        assert server.terminate() == 0
        assert "requests cut off" in [line["message"] for line in server.lines()]


def test_a_second_signal_ends_it_now() -> None:
    waits = {"RECEIVE_TIMEOUT_SECONDS": NEVER, "DRAIN_SECONDS": NEVER}
    with Server(MODEL_PATH=MODELS / "digits", **waits) as server, closing(half_sent(server, b"{" + b" " * 50)):
        server.process.send_signal(signal.SIGTERM)
        wait_for(lambda: "draining" in server.output(), 20)
        assert server.terminate() == 0


def test_a_taken_port() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        ended = run("serve", HOST="127.0.0.1", PORT=listener.getsockname()[1])
    assert ended.returncode == 1
    assert ended.stderr.startswith("inference-server: can't listen on 127.0.0.1:")
    assert "set PORT to a free port" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


def test_health_fails_when_an_engine_is_dead(samples: list[dict[str, Any]]) -> None:
    """In this process, because only here a thread of the server can be hurt."""
    import asyncio

    from inference_server.app import create_app
    from inference_server.models import find_models
    from inference_server.registry import Registry
    from inference_server.serving import Phase, Serving
    from inference_server.settings import Settings

    serving = Serving(Settings())
    serving.loaded = Registry.load(find_models(MODELS / "digits" / "2"), serving.settings, serving.metrics)
    serving.phase = Phase.READY
    engine: Any = serving.loaded.models[0].engine

    def die() -> bool:
        raise MemoryError("sabotage")

    async def scene() -> None:
        transport = httpx.ASGITransport(app=create_app(serving))
        async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
            assert (await client.get("/health")).status_code == 200
            engine.turn = die
            end = time.monotonic() + 60
            while engine.vitals().alive and time.monotonic() < end:
                await asyncio.sleep(0.05)
            reply = await client.get("/health")
            assert reply.status_code == 503
            assert reply.json()["problems"] == ["digits:2: the engine's loop died: MemoryError: sabotage"]
            assert (await client.get("/ready")).status_code == 503
            answer = await client.post("/predict", json={"inputs": samples[0]["pixels"]})
            assert answer.status_code == 503
            assert answer.json()["error"]["code"] == "engine_down"

    asyncio.run(scene())


def test_while_loading(tmp_path: Path) -> None:
    import asyncio

    from inference_server.app import create_app
    from inference_server.serving import Serving
    from inference_server.settings import Settings

    async def scene() -> None:
        transport = httpx.ASGITransport(app=create_app(Serving(Settings())))
        async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
            assert (await client.get("/health")).json()["phase"] == "loading"
            assert (await client.get("/ready")).status_code == 503
            answer = await client.post("/v1/chat/completions", json=CHAT)
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "loading")

    asyncio.run(scene())
