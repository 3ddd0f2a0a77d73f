"""A text model behind the server: our own server with the tutor as the upstream, and a small one that misbehaves on purpose."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import Server, free_port, run, wait_for
from inference_server.engines.breaker import Breaker
from inference_server.engines.upstream_events import refusal
from inference_server.errors import StartError
from inference_server.settings import read_settings
from test_reload import Starting

KEY = "key-of-the-front-server"
QUESTION = [{"role": "user", "content": "What is a Docker image?"}]
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def openai_engine(url: str, **more: object) -> dict[str, object]:
    return {"ENGINE": "openai", "UPSTREAM_URL": url, **more}


@pytest.fixture(scope="module")
def key_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("secret") / "key"
    file.write_text(f"{KEY}\n")
    return file


@pytest.fixture(scope="module")
def behind(key_file: Path) -> Iterator[Server]:
    """The upstream: the tutor, for who has the key."""
    with Server(API_KEYS=f"front:{KEY}") as running:
        running.client.headers["Authorization"] = f"Bearer {KEY}"
        yield running


@pytest.fixture(scope="module")
def front(behind: Server, key_file: Path) -> Iterator[Server]:
    """The server that asks it."""
    settings = openai_engine(f"{behind.url}/v1", UPSTREAM_MODEL="tutor", UPSTREAM_KEY_FILE=key_file)
    with Server(**settings) as running:
        yield running


def post(server: Server, path: str, **body: object) -> Any:
    reply = server.client.post(path, json=body)
    assert reply.status_code == 200, reply.text
    return reply.json()


def events(server: Server, path: str, **body: object) -> list[dict[str, Any]]:
    """What a stream says, without its [DONE], which has to be there unless it ends in an error."""
    with server.client.stream("POST", path, json={**body, "stream": True}) as reply:
        assert reply.status_code == 200, reply.read()
        lines = [line[6:] for line in reply.iter_lines() if line.startswith("data: ")]
    found = [json.loads(line) for line in lines if line != "[DONE]"]
    assert ("error" in found[-1]) or lines[-1] == "[DONE]"
    return found


def same(front: Server, behind: Server, path: str, **body: object) -> None:
    """The same choices and the same usage, asked directly and through the front."""
    told, direct = post(front, path, **body), post(behind, path, **body)
    assert told["choices"] == direct["choices"]
    assert told["usage"] == direct["usage"]


def count(server: Server, series: str) -> float:
    lines = server.client.get("/metrics").text.splitlines()
    return next((float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(series)), 0.0)


def test_it_has_the_upstreams_text_model_and_its_own_others(front: Server, behind: Server) -> None:
    models = {model["id"]: model for model in front.client.get("/models").json()["models"]}
    assert {name: model["engine"] for name, model in models.items()} == {
        "digits:1": "onnx",
        "digits:2": "onnx",
        "embedder:1": "numpy",
        "tutor:1": "openai",
    }
    assert models["tutor:1"]["card"]["upstream"] == f"{behind.url}/v1"
    theirs = {model["id"]: model["created"] for model in behind.client.get("/v1/models").json()["data"]}
    assert front.client.get("/v1/models/tutor").json()["created"] == theirs["tutor"]
    assert front.client.get("/v2/models/tutor").json()["platform"] == "openai"
    reply = front.client.post("/v1/embeddings", json={"input": "a text"})
    assert reply.status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"max_tokens": 5},
        {"temperature": 0.9, "top_p": 0.8, "seed": 7, "n": 3, "max_tokens": 20},
        {"logprobs": True, "top_logprobs": 4, "n": 2, "temperature": 1, "seed": 1, "max_tokens": 12},
        {"stop": [" is", "a "], "max_tokens": 40},
        {"frequency_penalty": 1.0, "presence_penalty": 0.5, "logit_bias": {"260": -100, "5": 2}, "max_tokens": 30},
    ],
    ids=["plain", "short", "several", "logprobs", "stop", "penalties"],
)
def test_a_chat_is_answered_as_directly(front: Server, behind: Server, body: dict[str, Any]) -> None:
    same(front, behind, "/v1/chat/completions", messages=QUESTION, **body)


@pytest.mark.parametrize(
    "body",
    [
        {"prompt": "A Docker image is"},
        {"prompt": ["A Docker image is", "Kubernetes", "A pod"], "n": 2, "seed": 3, "temperature": 1, "max_tokens": 12},
        {"prompt": ["A Docker image is", "A pod"], "logprobs": 3, "echo": False, "max_tokens": 6},
        {"prompt": "A container", "echo": True, "stop": "."},
    ],
    ids=["plain", "several", "logprobs", "echo"],
)
def test_a_text_goes_on_as_directly(front: Server, behind: Server, body: dict[str, Any]) -> None:
    same(front, behind, "/v1/completions", **body)


def test_a_stream_comes_in_the_same_pieces(front: Server, behind: Server) -> None:
    body: dict[str, Any] = {
        "messages": QUESTION, "n": 2, "temperature": 0.7, "seed": 5, "max_tokens": 30, "stream_options": {"include_usage": True},
    }  # fmt: skip

    def told(server: Server) -> tuple[list[list[str]], list[str | None], Any]:
        found = events(server, "/v1/chat/completions", **body)
        pieces: list[list[str]] = [[], []]
        finish: list[str | None] = [None, None]
        for choice in (choice for event in found for choice in event["choices"]):
            if choice["delta"].get("content"):
                pieces[choice["index"]].append(choice["delta"]["content"])
            finish[choice["index"]] = choice["finish_reason"] or finish[choice["index"]]
        return pieces, finish, found[-1]["usage"]

    through, direct = told(front), told(behind)
    assert through == direct
    assert len(through[0][0]) > 5


def test_the_other_contracts_ask_it_too(front: Server, behind: Server) -> None:
    body = {"inputs": "What is a Docker image?", "model": "tutor"}
    assert post(front, "/predict", **body)["text"] == post(behind, "/predict", **body)["text"]
    texts = {"inputs": ["What is a pod?", "What is a Docker image?"], "model": "tutor"}
    told, direct = post(front, "/batch_predict", **texts), post(behind, "/batch_predict", **texts)
    assert [each["text"] for each in told["predictions"]] == [each["text"] for each in direct["predictions"]]
    assert [each["usage"] for each in told["predictions"]] == [each["usage"] for each in direct["predictions"]]


def test_what_it_refuses(front: Server) -> None:
    def error(path: str, **body: object) -> tuple[int, str, str]:
        reply = front.client.post(path, json=body)
        return reply.status_code, reply.json()["error"]["code"], reply.json()["error"]["message"]

    for prompt in ([1, 2, 3], [[1], [2]]):
        status, code, said = error("/v1/completions", prompt=prompt)
        assert (status, code) == (400, "token_ids")
        assert said.endswith("send the prompt as text, not as token ids.")
    assert error("/v1/completions", prompt=[1], echo=True)[1] == "token_ids"
    status, code, said = error("/v1/chat/completions", messages=[{"role": "user", "content": "word " * 3000}])
    assert (status, code) == (400, "upstream_said")
    assert "shorten it" in said
    assert error("/v1/chat/completions", messages=QUESTION, max_tokens=100000)[:2] == (400, "max_tokens_too_large")
    assert error("/v1/chat/completions", messages=QUESTION, logit_bias={"99999999": 1})[:2] == (400, "upstream_said")
    assert front.client.get("/ready").status_code == 200


def test_its_metrics_are_those_of_every_text_model(front: Server) -> None:
    labels = '{model="tutor",version="1"}'
    before = {name: count(front, f"inference_{name}{labels}") for name in ("requests_total", "completion_tokens_total")}
    usage = post(front, "/v1/chat/completions", messages=QUESTION)["usage"]
    assert count(front, f"inference_requests_total{labels}") == before["requests_total"] + 1
    written = before["completion_tokens_total"] + usage["completion_tokens"]
    assert count(front, f"inference_completion_tokens_total{labels}") == written
    assert count(front, f"inference_time_to_first_token_seconds_count{labels}") >= 1
    assert count(front, f"inference_running_requests{labels}") == 0
    assert count(front, 'inference_model_info{engine="openai",kind="generate",model="tutor",version="1"}') == 1


def test_the_trace_goes_on_upstream(front: Server, behind: Server) -> None:
    front.client.post(
        "/v1/chat/completions", json={"messages": QUESTION, "max_tokens": 3}, headers={"traceparent": TRACE}
    )
    wait_for(lambda: TRACE.split("-")[1] in behind.output(), 5)
    lines = {server.port: [line for line in server.lines() if line.get("trace_id")][-1] for server in (front, behind)}
    assert lines[front.port]["trace_id"] == lines[behind.port]["trace_id"]
    assert lines[front.port]["span_id"] != lines[behind.port]["span_id"]


def test_who_hangs_up_frees_the_slot_upstream(front: Server, behind: Server) -> None:
    body = {
        "messages": QUESTION,
        "max_tokens": 512,
        "logit_bias": {str(token): -100 for token in range(4)},
        "stream": True,
    }
    running = 'inference_running_requests{model="tutor",version="%s"}'  # of what answers as "tutor" behind, the second
    with front.client.stream("POST", "/v1/chat/completions", json=body) as reply:
        next(reply.iter_lines())
    wait_for(lambda: count(front, running % 1) == count(behind, running % 2) == 0, 5)
    cancelled = 'inference_errors_total{model="tutor",reason="cancelled",version="%s"}'
    assert count(front, cancelled % 1) == count(behind, cancelled % 2) == 1


def test_a_reload_leaves_it_alone(front: Server) -> None:
    front.process.send_signal(signal.SIGHUP)
    wait_for(lambda: "asked to reload" in front.output(), 5)
    time.sleep(0.5)
    assert "tutor:1" in front.client.get("/ready").json()["models"]
    assert "model closed" not in front.output()


def test_batch_asks_it_too(front: Server, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('"What is a pod?"\n')
    done = run(
        "batch",
        str(tmp_path / "in.jsonl"),
        str(tmp_path / "out.jsonl"),
        **openai_engine(f"{front.url}/v1", UPSTREAM_MODEL="tutor"),
    )
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "out.jsonl").read_text())
    assert result["text"] == post(front, "/predict", inputs="What is a pod?")["text"]


def test_the_key_is_written_nowhere(front: Server, behind: Server) -> None:
    assert KEY not in front.output()
    assert KEY not in behind.output()
    assert KEY not in front.client.get("/models").text


def test_an_upstream_that_dies_in_mid_answer_and_comes_back(tmp_path: Path) -> None:
    port = free_port()
    upstream = Server(AIP_HTTP_PORT=port, MAX_NEW_TOKENS=100000)
    try:
        with Server(**openai_engine(f"http://127.0.0.1:{port}/v1", UPSTREAM_MODEL="tutor", SLOTS=4)) as front:
            body = {
                "messages": QUESTION,
                "max_tokens": 512,
                "logit_bias": {str(token): -100 for token in range(4)},
                "stream": True,
            }
            with front.client.stream("POST", "/v1/chat/completions", json=body) as reply:
                lines = reply.iter_lines()
                seen = [next(lines) for _ in range(8)]
                upstream.process.send_signal(signal.SIGSTOP)
                upstream.process.kill()
                seen += [line for line in lines if line]
            assert reply.status_code == 200
            assert json.loads(seen[-1][6:])["error"]["code"] in ("upstream_silent", "upstream_broke_off")
            codes: list[tuple[int, str]] = []
            while front.client.get("/ready").status_code == 200:
                failed = front.client.post("/v1/chat/completions", json={"messages": QUESTION})
                codes.append((failed.status_code, failed.json()["error"]["code"]))
                assert len(codes) < 5
            assert codes
            assert set(codes) <= {(502, "upstream_silent"), (503, "upstream_down")}
            ready = front.client.get("/ready")
            assert (ready.status_code, ready.json()["problems"]) == (
                503,
                ["tutor:1: its server upstream keeps failing"],
            )
            assert front.client.get("/health").status_code == 200
            assert front.client.get("/ping").status_code == 503
            refused = front.client.post("/v1/chat/completions", json={"messages": QUESTION})
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "upstream_down")
            assert int(refused.headers["retry-after"]) >= 1
            again = Server(AIP_HTTP_PORT=port)
            try:
                wait_for(lambda: front.client.get("/ready").status_code == 200, 30)
                assert post(front, "/v1/chat/completions", messages=QUESTION)["choices"][0]["message"]["content"]
                assert "upstream answers again" in front.output()
                assert front.terminate() == 0
            finally:
                again.kill()
    finally:
        upstream.kill()


class Bad:
    """A real HTTP server that has one model and answers each question as it was told, one way after the other."""

    def __init__(self) -> None:
        self.ways: list[Any] = []
        self.asked: list[float] = []
        self.keys: list[str | None] = []
        bad = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                bad.keys.append(self.headers["Authorization"])
                self.reply(200, b'{"object": "list", "data": [{"id": "library/small:latest", "created": 5}]}')

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                bad.asked.append(time.monotonic())
                bad.keys.append(self.headers["Authorization"])
                way = bad.ways.pop(0) if bad.ways else good
                try:
                    way(self)
                except (BrokenPipeError, ConnectionResetError):
                    self.close_connection = True

            def reply(self, status: int, body: bytes, **headers: str) -> None:
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name.replace("_", "-"), value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/v1"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


def sse(*events: object) -> bytes:
    lines = [each if isinstance(each, str) else json.dumps(each, ensure_ascii=False) for each in events]
    return "".join(f"data: {line}\n\n" for line in lines).encode()


def piece(text: str, finish: str | None = None) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": finish}]}


def good(handler: Any) -> None:
    """A text with characters that some take for the end of a line; no usage."""
    handler.reply(200, b": a comment\n\n" + sse(piece("one\u2028"), piece("\x85two", "stop"), "[DONE]"))


def says(status: int, **headers: str) -> Any:
    return lambda handler: handler.reply(status, b'{"error": {"message": "no, ' + KEY.encode() + b'"}}', **headers)


def says_events(*events: object) -> Any:
    return lambda handler: handler.reply(200, sse(*events))


def hangs_up(handler: Any) -> None:
    handler.close_connection = True


def breaks_after_the_end(handler: Any) -> None:
    """All was said, [DONE] too, and the connection breaks before the reply's last chunk."""
    data = sse(piece("one "), piece("two", "stop"), "[DONE]")
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    handler.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
    handler.close_connection = True


def is_slow(handler: Any) -> None:
    time.sleep(8)
    hangs_up(handler)


@pytest.fixture(scope="module")
def bad() -> Iterator[Bad]:
    made = Bad()
    yield made
    made.server.shutdown()


@pytest.fixture(scope="module")
def before_bad(bad: Bad, key_file: Path) -> Iterator[Server]:
    """A server in front of it."""
    with Server(
        **openai_engine(bad.url, UPSTREAM_KEY_FILE=key_file, UPSTREAM_TIMEOUT_SECONDS=5, SLOTS=2, MAX_QUEUE=2)
    ) as running:
        yield running
        assert KEY not in running.output()


def ask(server: Server, **body: object) -> httpx.Response:
    return server.client.post("/v1/chat/completions", json={"messages": QUESTION, **body})


@pytest.mark.parametrize(
    "ways",
    [
        [says(500), says(503)],
        [says(429, Retry_After="0")],
        [hangs_up, hangs_up],
        [says_events("{half")],
        [says_events("[1]", "[DONE]"), says_events({"choices": [{"index": 9, "delta": {"content": "x"}}]})],
        [says_events({"error": {"message": "out of memory"}}), says_events("[DONE]")],
        [says_events({"choices": 3}), says_events({"choices": [{"index": 0, "delta": {"content": 7}}]})],
    ],
    ids=["500", "429", "hangs-up", "torn", "strange", "error", "types"],
)
def test_what_fails_before_its_first_piece_is_asked_again(before_bad: Server, bad: Bad, ways: list[Any]) -> None:
    bad.ways, bad.asked = [*ways], []
    reply = ask(before_bad)
    assert reply.status_code == 200, reply.text
    assert reply.json()["choices"][0]["message"]["content"] == "one\u2028\x85two"
    usage = {
        "prompt_tokens": 0,
        "completion_tokens": 2,
        "total_tokens": 2,
        "prompt_tokens_details": {"cached_tokens": 0},
    }
    assert reply.json()["usage"] == usage
    assert len(bad.asked) == len(ways) + 1
    assert bad.keys[0] == f"Bearer {KEY}"


def test_a_new_key_needs_no_restart(before_bad: Server, bad: Bad, key_file: Path) -> None:
    bad.ways = []
    for text, sent in (("another-key\n", "another-key"), ("two\nlines", "another-key"), (f"{KEY}\n", KEY)):
        key_file.write_text(text)
        assert ask(before_bad).status_code == 200
        assert bad.keys[-1] == f"Bearer {sent}"
    assert "key for upstream not read again" in before_bad.output()


def test_names_are_plain(before_bad: Server) -> None:
    assert before_bad.client.get("/v1/models/small:latest").json()["created"] == 5
    assert ask(before_bad, model="small:latest").headers["x-model-version"] == "latest"


@pytest.mark.parametrize(
    ("way", "status", "code", "times"),
    [
        (says(429), 429, "upstream_busy", 3),
        (says(429, Retry_After="30"), 429, "upstream_busy", 1),
        (says(503, Retry_After="Fri, 31 Dec 2100 23:59:59 GMT"), 503, "upstream_busy", 1),
        (says(400), 400, "upstream_said", 1),
        (says(401), 502, "upstream_refuses", 1),
        (says(307), 502, "upstream_refuses", 1),
        (is_slow, 504, "upstream_silent", 1),
        (says_events(piece("", "stop"), "[DONE]"), 200, "", 1),
    ],
    ids=["busy", "busy-for-long", "a-date", "refuses", "key", "elsewhere", "slow", "nothing-to-say"],
)
def test_what_is_told_when_it_goes_on(
    before_bad: Server, bad: Bad, way: Any, status: int, code: str, times: int
) -> None:
    bad.ways, bad.asked = [way] * 3, []
    reply = ask(before_bad)
    assert (reply.status_code, reply.json().get("error", {}).get("code", "")) == (status, code)
    assert KEY not in reply.text
    assert len(bad.asked) == times
    if code == "upstream_busy" and times == 1:
        assert int(reply.headers["retry-after"]) >= 30
    bad.ways = []
    assert ask(before_bad).status_code == 200


def test_what_breaks_after_the_end_of_an_answer_takes_nothing_from_it(before_bad: Server, bad: Bad) -> None:
    bad.ways, bad.asked = [breaks_after_the_end] * 12, []
    for _ in range(6):
        reply = ask(before_bad)
        assert reply.status_code == 200, reply.text
        assert reply.json()["choices"][0]["message"]["content"] == "one two"
        assert "error" not in events(before_bad, "/v1/chat/completions", messages=QUESTION)[-1]
    assert len(bad.asked) == 12


def test_pauses_grow(before_bad: Server, bad: Bad) -> None:
    bad.ways, bad.asked = [says(500), says(500)], []
    assert ask(before_bad).status_code == 200
    first, second = (after - before for before, after in zip(bad.asked, bad.asked[1:], strict=False))
    assert first >= 0.1
    assert second >= 0.2


@pytest.mark.parametrize(("attempt", "shortest", "longest"), [(1, 0.1, 0.2), (2, 0.2, 0.4), (3, 0.4, 0.8), (9, 5, 5)])
def test_pauses_have_an_end(attempt: int, shortest: float, longest: float) -> None:
    trouble = refusal(500, b"", "", str)
    assert all(shortest <= (trouble.pause(attempt) or 0) <= longest for _ in range(100))


def test_after_the_first_piece_nothing_is_asked_again(before_bad: Server, bad: Bad) -> None:
    bad.ways, bad.asked = [says_events(piece("begun"))], []
    found = events(before_bad, "/v1/chat/completions", messages=QUESTION)
    assert found[-1]["error"]["code"] == "upstream_broke_off"
    assert len(bad.asked) == 1


def test_an_upstream_that_does_not_know_n(before_bad: Server, bad: Bad) -> None:
    bad.ways = []
    reply = ask(before_bad, n=2)
    assert (reply.status_code, reply.json()["error"]["code"]) == (502, "upstream_too_few")


def test_a_full_queue(bad: Bad) -> None:
    """Two run, two wait, the others are sent away at once: the upstream answers nobody before they are."""
    replies: list[httpx.Response] = []
    three_were_sent_away = threading.Event()

    def then(handler: Any) -> None:
        if three_were_sent_away.wait(30):
            good(handler)

    with Server(**openai_engine(bad.url, SLOTS=2, MAX_QUEUE=2)) as server:
        bad.ways = [then] * 4

        def one_more() -> None:
            body = {"messages": QUESTION}
            replies.append(httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=60))
            if [reply.status_code for reply in replies].count(429) == 3:
                three_were_sent_away.set()

        crowd = [threading.Thread(target=one_more) for _ in range(7)]
        for one in crowd:
            one.start()
        for one in crowd:
            one.join()
    assert sorted(reply.status_code for reply in replies) == [200] * 4 + [429] * 3
    assert {reply.json()["error"]["code"] for reply in replies if reply.status_code == 429} == {"queue_full"}
    assert all(int(reply.headers["retry-after"]) >= 1 for reply in replies if reply.status_code == 429)


def test_the_breaker_opens_for_longer_and_longer() -> None:
    breaker = Breaker()
    for _ in range(Breaker.FAILURES):
        assert breaker.enter()
        breaker.failed()
    assert breaker.open and not breaker.enter()
    assert 0.9 < breaker.seconds <= 1
    breaker.shown()
    assert not breaker.open
    assert breaker.enter() and not breaker.enter()  # one may try
    breaker.failed()
    assert breaker.open
    assert 1.9 < breaker.seconds <= 2
    breaker.shown()
    assert breaker.enter()
    breaker.left()
    assert breaker.enter()
    breaker.succeeded()
    assert breaker.enter() and breaker.enter()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"UPSTREAM_MODEL": "tutor"}, "UPSTREAM_MODEL is set and ENGINE is auto: set ENGINE=openai to use it, or leave it out."),
        ({"ENGINE": "openai"}, "ENGINE=openai needs UPSTREAM_URL: set it to an address such as http://ollama:11434/v1."),
        *(
            ({"ENGINE": "openai", "UPSTREAM_URL": url}, "UPSTREAM_URL is no plain address: write one such as http://ollama:11434/v1, and a key into UPSTREAM_KEY_FILE.")
            for url in ("ollama:11434", "ftp://x/v1", "http://user:word@x/v1", "http://x/v1?key=y", "http://[x", "http://x:99999", "http://")
        ),
    ],
)  # fmt: skip
def test_settings_that_do_not_fit(settings: dict[str, str], said: str) -> None:
    with pytest.raises(StartError) as refused:
        read_settings(settings)
    assert str(refused.value) == said


def refused(tmp_path: Path, url: str, **more: object) -> str:
    ended = run("serve", HOST="127.0.0.1", PORT=free_port(), **openai_engine(url, **more))
    assert ended.returncode == 1
    assert KEY not in ended.stdout + ended.stderr
    return ended.stderr


def test_a_wrong_key_and_a_model_that_is_not_there(tmp_path: Path, behind: Server, bad: Bad, key_file: Path) -> None:
    url, wrong = f"{behind.url}/v1", tmp_path / "wrong"
    assert refused(tmp_path, url) == f"inference-server: {url} wants a key: set UPSTREAM_KEY_FILE (status 401).\n"
    wrong.write_text("another-key-altogether")
    assert refused(tmp_path, url, UPSTREAM_KEY_FILE=wrong) == (
        f"inference-server: {url} refuses the key in UPSTREAM_KEY_FILE (status 401).\n"
    )
    assert f"has no model 'gpt-4o': set UPSTREAM_MODEL to one it has, or load it there. It has: {'embedder, embedder:1, tutor:1, tutor, tutor:2'}." in (
        refused(tmp_path, url, UPSTREAM_KEY_FILE=key_file, UPSTREAM_MODEL="gpt-4o")
    )  # fmt: skip
    assert "UPSTREAM_MODEL is not set" in refused(tmp_path, url, UPSTREAM_KEY_FILE=key_file)
    assert "UPSTREAM_URL has to end where that API begins" in refused(tmp_path, behind.url, UPSTREAM_KEY_FILE=key_file)
    wrong.write_text("two\nlines")
    assert "holds no key" in refused(tmp_path, url, UPSTREAM_KEY_FILE=wrong)
    assert "can't be read (No such file or directory)" in refused(tmp_path, url, UPSTREAM_KEY_FILE=tmp_path / "none")


def test_an_upstream_that_is_never_there() -> None:
    url = f"http://127.0.0.1:{free_port()}/v1"
    starting = Starting(**openai_engine(url))
    try:
        wait_for(lambda: (reply := starting.get("/ready")) is not None and "waiting_for" in reply.json(), 60)
        time.sleep(1.5)
        reply, health = starting.get("/ready"), starting.get("/health")
        assert reply and health
        assert reply.status_code == 503
        assert reply.json()["waiting_for"] == f"{url} does not answer (ConnectError): is it running? See UPSTREAM_URL."
        assert health.status_code == 200
    finally:
        code, _, err = starting.end(signal.SIGTERM)
    assert (code, err) == (0, "")


def test_waiting_has_an_end_where_one_is_set() -> None:
    url = f"http://127.0.0.1:{free_port()}/v1"
    ended = run("serve", HOST="127.0.0.1", PORT=free_port(), MODEL_WAIT_SECONDS=1.5, **openai_engine(url))
    assert ended.returncode == 1
    assert ended.stderr == (
        f"inference-server: {url} does not answer (ConnectError): is it running? See UPSTREAM_URL. (MODEL_WAIT_SECONDS=1.5 are over)\n"
    )
