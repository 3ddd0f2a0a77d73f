"""Between clients: who may ask, who is next, how long one may take, and where a request stands in its trace."""

import asyncio
import http.server
import json
import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.grpc
from conftest import Server, free_port, run, wait_for
from inference_server.clients import address, read_networks
from inference_server.engines.fair import FairQueue, Pace
from inference_server.errors import StartError
from inference_server.keys import Keys
from inference_server.tracing import begin
from test_faults import at_once, request, statuses
from tritonclient.utils import InferenceServerException

openai = pytest.importorskip("openai")
QUESTION = [{"role": "user", "content": "What is a Docker image?"}]
ALICE, BOB, CAROL = "sk-alice-0001", "sk-bob-00000002", "sk-carol-0003"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Path]]:
    """A server with keys from a file, mounted as Kubernetes mounts a Secret: a link to a link, which is swapped."""
    folder = tmp_path_factory.mktemp("secret")
    for data, text in (
        ("..1", f"# two of us\nalice: {ALICE}\nbob:{BOB}\n"),
        ("..2", f"alice:{ALICE}\ncarol:{CAROL}\n"),
    ):
        (folder / data).mkdir()
        (folder / data / "keys").write_text(text)
    (folder / "..data").symlink_to("..1")
    (folder / "keys").symlink_to("..data/keys")
    with Server(API_KEYS_FILE=folder / "keys", SLOTS=2, MAX_QUEUE=100, GRPC_PORT=free_port()) as server:
        yield server, folder


def asks(server: Server, key: str, **options: Any) -> Any:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0) as client:
        return client.chat.completions.create(model="tutor", messages=QUESTION, max_tokens=3, **options)


def test_keys(guarded: tuple[Server, Path]) -> None:
    server, folder = guarded
    assert asks(server, ALICE).choices
    assert asks(server, BOB).choices
    for wrong in ("sk-wrong-00000", ALICE[:-1], ALICE + "x", "none"):
        with pytest.raises(openai.AuthenticationError) as refused:
            asks(server, wrong)
        assert refused.value.code == "invalid_api_key"
        assert refused.value.response.headers["www-authenticate"] == "Bearer"
        assert refused.value.response.headers["x-request-id"]
    body = {"inputs": "Hi", "model": "tutor", "max_tokens": 1}
    assert server.client.post("/predict", json=body, headers={"x-api-key": BOB}).status_code == 200
    assert server.client.post("/predict", json=body, headers={b"Authorization": b"Bearer \xff"}).status_code == 401
    for path in ("/predict", "/v1/chat/completions", "/nothing"):
        assert server.client.post(path, json=body).status_code == 401
    assert server.client.get("/v1/models").status_code == 401
    for path in ("/health", "/ready", "/metrics", "/"):
        assert server.client.get(path).status_code == 200
    # The Secret is swapped: bob is out, carol is in, alice stays.
    (folder / "..new").symlink_to("..2")
    (folder / "..new").rename(folder / "..data")
    assert asks(server, CAROL).choices
    assert asks(server, ALICE).choices
    with pytest.raises(openai.AuthenticationError):
        asks(server, BOB)
    # A file that is wrong changes nothing, and is complained about without what stands in it.
    (folder / "..2" / "keys").write_text("short\n")
    assert asks(server, CAROL).choices
    wait_for(lambda: "API keys not read again" in server.output(), 5)
    (folder / "..2" / "keys").write_text(f"alice:{ALICE}\nbob:{BOB}\ncarol:{CAROL}\n")
    assert asks(server, BOB).choices
    written = server.output() + server.client.get("/metrics").text
    for key in (ALICE, BOB, CAROL, "sk-wrong", "short"):
        assert key not in written
    assert {line.get("key") for line in server.lines()} >= {"alice", "bob", "carol"}
    assert ALICE.encode() not in Path(f"/proc/{server.process.pid}/cmdline").read_bytes()


def test_every_contract_wants_the_key(guarded: tuple[Server, Path], samples: list[dict[str, Any]]) -> None:
    """In the shape of its own errors; what platforms probe stays open."""
    client, key = guarded[0].client, {"Authorization": f"Bearer {ALICE}"}
    rows: dict[str, Any] = {"instances": [samples[0]["pixels"]]}
    tensor = {"name": "pixels", "datatype": "FP32", "shape": [1, 64], "data": samples[0]["pixels"]}
    for path, body in (
        ("/invocations", rows),
        ("/vertex/predict", rows),
        ("/v2/models/digits/infer", {"inputs": [tensor]}),
    ):
        refused = client.post(path, json=body)
        assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
        said = refused.json()["error"]
        assert (said if path.startswith("/v2") else said["message"]).startswith("This server wants an API key: send")
        assert client.post(path, json=body, headers=key).status_code == 200
    for path in ("/ping", "/vertex/health", "/v2/health/live", "/v2/health/ready"):
        assert client.get(path).status_code == 200
    assert client.get("/v2").status_code == 401


def test_keys_over_grpc(guarded: tuple[Server, Path], samples: list[dict[str, Any]]) -> None:
    server = guarded[0]
    client = tritonclient.grpc.InferenceServerClient(f"127.0.0.1:{server.settings['GRPC_PORT']}")
    rows = tritonclient.grpc.InferInput("pixels", [1, 64], "FP32")
    rows.set_data_from_numpy(np.array([samples[0]["pixels"]], np.float32))
    for headers in ({}, {"authorization": "Bearer sk-wrong-00000"}, {"x-api-key": "sk-wrong-00000"}):
        with pytest.raises(InferenceServerException) as refused:
            client.infer("digits", [rows], headers=headers)
        assert refused.value.status() == "StatusCode.UNAUTHENTICATED"
    for headers in ({"authorization": f"Bearer {ALICE}"}, {"x-api-key": ALICE}):
        answer = client.infer("digits", [rows], headers=headers)
        assert answer.as_numpy("label")[0].decode() == samples[0]["label"]
    assert client.is_server_live()
    assert client.is_server_ready()
    client.close()
    lines = [line for line in server.lines() if line.get("route", "").endswith("/ModelInfer")]
    assert [(line["status"], line.get("key")) for line in lines] == [("UNAUTHENTICATED", None)] * 3 + [
        ("OK", "alice")
    ] * 2


def test_keys_that_are_refused_at_the_start(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    for text, said in (
        ("", "holds no key"),
        ("# none\n", "holds no key"),
        ("alice: short\n", "entry 1 is no key"),
        (f"{ALICE}\nalice:{ALICE}\n", "entry 2 repeats a key or a name"),
        ("ümlaut: abcdefgh\n", "entry 1 is no key"),
    ):
        file.write_text(text)
        with pytest.raises(StartError, match=said):
            Keys(file=str(file))
    ended = run("serve", API_KEYS_FILE=file, PORT=free_port())
    assert (ended.returncode, len(ended.stderr.splitlines())) == (1, 1)
    with pytest.raises(StartError, match="can't be read"):
        Keys(file=str(tmp_path / "nothing"))
    with pytest.raises(StartError, match="API_KEYS: entry 2 is no key"):
        Keys(given=f"{ALICE},x")
    assert Keys(given=f"{ALICE},bob:{BOB}").name_of(BOB.encode()) == "bob"
    assert Keys(given=f"{ALICE},bob:{BOB}").name_of(ALICE.encode()) == "key-1"
    assert not Keys().wanted


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("203.0.113.9", [], "203.0.113.9"),
        ("203.0.113.9", ["198.51.100.1"], "203.0.113.9"),  # a stranger may say what it likes
        ("10.0.0.1", ["198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["6.6.6.6, 198.51.100.1"], "198.51.100.1"),  # invented by 198.51.100.1
        ("10.0.0.1", ["6.6.6.6", "198.51.100.1, 10.0.0.7"], "198.51.100.1"),
        ("10.0.0.1", ["10.0.0.7"], "10.0.0.7"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.1, rubbish"], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.1:4711"], "198.51.100.1"),
        ("::ffff:10.0.0.1", ["[2001:db8::1:2]:80"], "2001:db8::/64"),
        ("2001:db8::5", [], "2001:db8::/64"),
        ("unix", [], "unix"),
    ],
)
def test_addresses(peer: str, forwarded: list[str], client: str) -> None:
    assert address(peer, forwarded, read_networks("10.0.0.0/8, 192.0.2.1")) == client


def test_proxies_that_are_no_addresses() -> None:
    ended = run("serve", TRUSTED_PROXIES="10.0.0.0/8,nginx", PORT=free_port())
    assert ended.returncode == 1
    assert "TRUSTED_PROXIES=10.0.0.0/8,nginx" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


class Work:
    def __init__(self, client: str, cost: int = 10) -> None:
        self.client, self.cost = client, cost


def test_the_queue_is_fair() -> None:
    queue: FairQueue[Work] = FairQueue()
    for _ in range(100):
        queue.push(Work("greedy"))
    for _ in range(10):
        taken = queue.pop()
        assert taken
        queue.done(taken, 10)
    for _ in range(3):
        queue.push(Work("polite"))
    order = [item.client for item in (queue.pop() for _ in range(8)) if item]
    assert order[:6].count("polite") == 3  # turn by turn, though the other came first and has many
    queue.push(Work("late", 40))
    queue.push(Work("late", 40))
    order = [item.client for item in (queue.pop() for _ in range(9)) if item]
    assert 0 < order.index("late") + 1 <= 2
    assert order.count("late") == 2 - (order.count("greedy") < 4)
    assert len(queue) == 100 + 3 + 2 - 10 - 8 - 9


def test_nothing_follows_what_was_given_up() -> None:
    """One answer of several ends at once while its client hangs up: the account is settled, and asked for what comes after."""
    queue: FairQueue[Work] = FairQueue()
    first, second = Work("one"), Work("one")
    queue.push(first)
    queue.push(second)
    assert queue.pop() is first
    queue.drop("one", {second})
    queue.done(first, 10)
    assert queue.pop_after(first, lambda other: True) is None
    queue.done(first, 10)
    assert queue.pop() is None
    assert len(queue) == 0


def test_who_was_away_saved_nothing_up() -> None:
    queue: FairQueue[Work] = FairQueue()
    for _ in range(50):
        queue.push(Work("steady"))
    for _ in range(20):
        queue.pop()
    for _ in range(20):
        queue.push(Work("back"))
    order = [item.client for item in (queue.pop() for _ in range(20)) if item]
    assert 9 <= order.count("back") <= 11


def test_a_crowder_makes_room() -> None:
    queue: FairQueue[Work] = FairQueue()
    for _ in range(5):
        queue.push(Work("greedy"))
    newest = queue.crowder("polite", 1)
    assert newest and newest.client == "greedy"
    assert queue.crowder("greedy", 1) is None
    assert queue.crowder("polite", 5) is None
    queue.drop("greedy", {newest})
    assert len(queue) == 4


def test_pace() -> None:
    pace = Pace()
    assert pace.seconds(100, 5.0) == 1
    for at in range(11):
        pace.ended(float(at) / 2)
    assert pace.seconds(10, 5.0) == 5
    assert pace.seconds(10_000, 5.0) == 60
    pace.rest()
    assert pace.seconds(10, 50.0) == 1


def test_a_greedy_client_does_not_hold_up_a_polite_one(guarded: tuple[Server, Path]) -> None:
    """100 requests in flight on two slots, then one of somebody else: it is among the next to be answered, not the 101st."""
    server, _ = guarded
    before = len(server.lines())

    async def scene() -> None:
        ended = 0
        limits = httpx.Limits(max_connections=300)
        async with httpx.AsyncClient(base_url=server.url, timeout=120, limits=limits) as client:

            async def one(key: str) -> None:
                nonlocal ended
                body = {"messages": QUESTION, "max_tokens": 60, "temperature": 2, "logit_bias": {"2": -100}}
                reply = await client.post("/v1/chat/completions", json=body, headers={"x-api-key": key})
                assert reply.status_code == 200, reply.text
                ended += 1

            greedy = [asyncio.create_task(one(ALICE)) for _ in range(100)]
            while ended < 10:
                await asyncio.sleep(0.005)
            for _ in range(4):
                await one(BOB)
            await asyncio.gather(*greedy)

    def times(key: str) -> list[tuple[float, float]]:
        """When its requests began and ended by the server's log: a slow client hears of answers late and in any order."""
        lines = [line for line in server.lines()[before:] if line.get("key") == key]
        ends = [datetime.fromisoformat(line["time"]).timestamp() for line in lines]
        return [(end - line["ms"] / 1000, end) for line, end in zip(lines, ends, strict=True)]

    asyncio.run(scene())
    wait_for(lambda: len(times("alice") + times("bob")) == 104, 10)
    places = [sum(began < end < ended for _, end in times("alice")) for began, ended in times("bob")]
    # Before it come at most those two who held the slots, and those that share the slots with it while it runs.
    assert max(places) <= 8, places


def test_a_greedy_client_does_not_fill_the_queue(guarded: tuple[Server, Path]) -> None:
    server, _ = guarded
    path, body = "/v1/chat/completions", {"messages": QUESTION, "max_tokens": 60, "logit_bias": {"2": -100}}
    greedy, polite = (request(path, body, "Connection: close", f"x-api-key: {key}") for key in (ALICE, BOB))
    *crowd, last = at_once(server, [greedy] * 180 + [polite])
    assert last.startswith(b"HTTP/1.1 200")
    refused = [reply for reply in crowd if reply.startswith(b"HTTP/1.1 429")]
    assert 180 - 102 - 40 <= len(refused) < 180
    assert statuses(crowd).keys() == {200, 429}
    for reply in refused:
        seconds = re.search(rb"\r\nretry-after: (\d+)\r\n", reply)
        assert seconds and 1 <= int(seconds[1]) <= 60
        assert re.search(rb"try again in \d+ s\.", reply)
        assert b'"code":"queue_full"' in reply


def test_the_openai_package_comes_back_after_429() -> None:
    """Three want the one slot; again where one of them was so late that it was free."""
    with Server(SLOTS=1, MAX_QUEUE=0) as server, ExitStack() as held, ThreadPoolExecutor(3) as pool:
        url = f"{server.url}/v1"
        clients = [held.enter_context(openai.OpenAI(base_url=url, api_key="none")) for _ in range(3)]
        together = threading.Barrier(3)

        def ask(client: Any) -> str:
            options: dict[str, Any] = {"max_tokens": 512, "logit_bias": {"2": -100}}
            together.wait(60)
            answer = client.chat.completions.create(model="tutor", messages=QUESTION, **options)
            return str(answer.choices[0].message.content)

        def three(retries: int) -> list[Future[str]]:
            asked = [pool.submit(ask, client.with_options(max_retries=retries)) for client in clients]
            wait(asked)
            return asked

        wait_for(lambda: all(each.result() for each in three(8)) and 'status="429"' in metrics(server), 60)
        wait_for(lambda: openai.RateLimitError in {type(each.exception()) for each in three(0)}, 60)


def test_a_request_may_not_take_for_ever() -> None:
    with Server(REQUEST_TIMEOUT_SECONDS=0.2, SLOTS=1) as server:
        body = {"model": "tutor", "messages": QUESTION, "max_tokens": 512, "logit_bias": {"2": -100}, "n": 1}
        long = {**body, "temperature": 1.5, "logprobs": True, "top_logprobs": 20, "frequency_penalty": 0.1}
        with ThreadPoolExecutor(12) as pool:
            replies = list(pool.map(lambda _: server.client.post("/v1/chat/completions", json=long), range(12)))
        late = [reply for reply in replies if reply.status_code == 504]
        assert late
        assert "The answer took longer than 0.2 s" in late[0].json()["error"]["message"]
        wait_for(lambda: 'inference_running_requests{model="tutor",version="2"} 0.0' in metrics(server), 5)
        with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
            options = {key: value for key, value in long.items() if key != "model"}
            with pytest.raises(openai.APIError, match="took longer than"):
                list(client.chat.completions.create(model="tutor", stream=True, **options))
                list(client.completions.create(model="tutor", prompt=["a"] * 16, max_tokens=512, n=1, stream=True))


def metrics(server: Server) -> str:
    return server.client.get("/metrics").text


PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def test_traceparent(server: Server) -> None:
    reply = server.client.get("/v1/models", headers={"traceparent": PARENT, "X-Request-ID": "trace-1"})
    given = reply.headers["traceparent"].split("-")
    assert given[:2] == PARENT.split("-")[:2]
    assert given[2] != PARENT.split("-")[2]
    wait_for(lambda: "trace-1" in server.output(), 5)
    line = next(line for line in server.lines() if line.get("request_id") == "trace-1")
    assert (line["trace_id"], line["span_id"]) == (given[1], given[2])
    for wrong in (
        b"",
        b"rubbish",
        b"ff" + PARENT[2:].encode(),
        PARENT.encode() + b"-x",
        b"00-" + b"0" * 32 + PARENT[35:].encode(),
    ):
        assert begin(wrong, always=False) is None
    assert begin(PARENT.replace("00-4", "cc-4", 1).encode() + b"-more", always=False)
    assert "traceparent" not in server.client.get("/v1/models").headers


class Collector(http.server.BaseHTTPRequestHandler):
    """An OpenTelemetry collector: keeps what it gets."""

    got: list[tuple[str, str, bytes]] = []  # noqa: RUF012 (one for all, on purpose: a handler lives for one request)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.got.append((self.path, self.headers["Content-Type"], body))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, format: str, *args: object) -> None:
        pass


def test_spans_are_what_a_collector_reads() -> None:
    pytest.importorskip("opentelemetry.proto")
    import base64

    from google.protobuf.json_format import ParseDict
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    Collector.got.clear()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Collector) as collector:
        threading.Thread(target=collector.serve_forever, daemon=True).start()
        endpoint = f"http://127.0.0.1:{collector.server_port}/"
        with Server(OTEL_EXPORTER_OTLP_ENDPOINT=endpoint, OTEL_SERVICE_NAME="lab") as server:
            began = time.time_ns()
            chat = {"messages": QUESTION, "max_tokens": 3}
            server.client.post("/v1/chat/completions", json=chat, headers={"traceparent": PARENT})
            server.client.post("/v1/chat/completions", json=chat, headers={"traceparent": PARENT[:-1] + "0"})
            server.client.post("/predict", json={"inputs": 5})
            assert server.terminate() == 0  # what is left is sent at the end
        collector.shutdown()
    spans = []
    for path, kind, body in Collector.got:
        assert (path, kind) == ("/v1/traces", "application/json")
        message = json.loads(body)
        for span in message["resourceSpans"][0]["scopeSpans"][0]["spans"]:
            for key in ("traceId", "spanId", "parentSpanId"):  # OTLP's one departure from protobuf's JSON: hexadecimal
                if key in span:
                    span[key] = base64.b64encode(bytes.fromhex(span[key])).decode()
        parsed = ParseDict(message, ExportTraceServiceRequest())
        resource = parsed.resource_spans[0].resource.attributes
        assert {each.key: each.value.string_value for each in resource}["service.name"] == "lab"
        spans += list(parsed.resource_spans[0].scope_spans[0].spans)
    assert [span.name for span in spans] == ["POST /v1/chat/completions", "POST /predict"]  # the second was not sampled
    chat_span = spans[0]
    assert chat_span.trace_id.hex() == PARENT.split("-")[1]
    assert chat_span.parent_span_id.hex() == PARENT.split("-")[2]
    assert chat_span.kind == chat_span.SPAN_KIND_SERVER
    assert began < chat_span.start_time_unix_nano < chat_span.end_time_unix_nano <= time.time_ns()
    attributes = {each.key: each.value for each in chat_span.attributes}
    assert attributes["http.response.status_code"].int_value == 200
    assert attributes["gen_ai.usage.output_tokens"].int_value == 3
    assert spans[1].parent_span_id == b""


def test_a_collector_that_is_not_there_costs_nothing_but_spans() -> None:
    with Server(OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9") as server:
        assert server.client.get("/v1/models").status_code == 200
        wait_for(lambda: "trace_spans_dropped_total 1.0" in metrics(server), 10)
        assert server.terminate() == 0
    ended = run("serve", OTEL_EXPORTER_OTLP_ENDPOINT="collector:4318", PORT=free_port())
    assert ended.returncode == 1
    assert "OTEL_EXPORTER_OTLP_ENDPOINT is no address" in ended.stderr
