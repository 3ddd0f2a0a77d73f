"""Hot reload under load, copies that are torn, files that are cut under a running server, and signals at awkward moments."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import MODELS, START_SECONDS, Server, environment, free_port, frozen, run, wait_for
from test_traffic import count, two_tutors

CLIENTS = 16
QUESTION = "What is a Docker image?"
POLL = 0.3


def ready(server: Server) -> list[str]:
    """The models /ready names; a test fails when it is not ready."""
    reply = server.client.get("/ready")
    assert reply.status_code == 200, reply.text
    return list(reply.json()["models"])


def wait_until_loaded(server: Server, name: str, version: str, times: int) -> None:
    series = f'inference_model_loads_total{{model="{name}",version="{version}"}}'
    wait_for(lambda: count(server, series) == times, 120)


def wait_until_closed(server: Server, versions: int) -> None:
    wait_for(lambda: server.output().count('"model closed"') == versions, 120)


def arrive(source: Path, target: Path, version: str | None = None, **card: object) -> None:
    """Put a version in its place as one should: copied beside it under a hidden name, then moved."""
    hidden = target.parent / f".{target.name}"
    shutil.copytree(source, hidden)
    if version or card:
        path = hidden / "model.json"
        about = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps({**about, **({"version": version} if version else {}), **card}))
    if target.exists():
        target.rename(target.parent / ".old")
    hidden.rename(target)
    shutil.rmtree(target.parent / ".old", ignore_errors=True)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """digits 1 and 2 and tutor 1 and 2."""
    models = two_tutors(tmp_path / "models")
    shutil.copytree(MODELS / "digits", models / "digits")
    return models


class Crowd:
    """Clients that ask without a pause until they are told to stop, each on a thread of its own; every reply is kept."""

    def __init__(self, server: Server, samples: list[dict[str, Any]]) -> None:
        self.replies: Counter[tuple[str, int, str]] = Counter()
        self.wrong: list[str] = []
        self.lock = threading.Lock()
        self._server = server
        self._samples = samples
        self._stop = threading.Event()
        ways = (self.whole, self.streamed, self.classified, self.batched)
        self._threads = [threading.Thread(target=self._run, args=(ways[n % len(ways)],)) for n in range(CLIENTS)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout=120)

    def _run(self, way: Callable[[httpx.Client], str]) -> None:
        with httpx.Client(base_url=self._server.url, timeout=120) as client:
            while not self._stop.is_set():
                try:
                    answered = way(client)
                except Exception as error:  # noqa: BLE001 (whatever it is, a request was lost)
                    with self.lock:
                        self.wrong.append(f"{way.__name__}: {error!r}")
                else:
                    with self.lock:
                        self.replies[(way.__name__, 200, answered)] += 1

    def whole(self, client: httpx.Client) -> str:
        reply = client.post("/v1/chat/completions", json=self.chat())
        assert reply.status_code == 200, reply.text
        body = reply.json()
        assert body["choices"][0]["finish_reason"] in ("stop", "length")
        assert body["model"] == f"tutor:{reply.headers['x-model-version']}"
        return str(body["model"])

    def streamed(self, client: httpx.Client) -> str:
        with client.stream("POST", "/v1/chat/completions", json={**self.chat(), "stream": True}) as reply:
            lines = [line for line in reply.iter_lines() if line]
        assert reply.status_code == 200, lines
        assert lines[-1] == "data: [DONE]", lines
        named = {json.loads(line[6:])["model"] for line in lines[:-1]}
        assert named == {f"tutor:{reply.headers['x-model-version']}"}
        return str(named.pop())

    def classified(self, client: httpx.Client) -> str:
        reply = client.post("/predict", json={"inputs": self._samples[0]["pixels"], "model": "digits"})
        assert reply.status_code == 200, reply.text
        body = reply.json()
        assert body["version"] == reply.headers["x-model-version"]
        # digits:3 is digits:2 with its labels reversed: an answer that came from other weights than it says shows.
        label = int(self._samples[0]["label"])
        wanted = 9 - label if body["version"] == "3" else label
        assert body["predicted_class"] == str(wanted), body
        return f"digits:{body['version']}"

    def batched(self, client: httpx.Client) -> str:
        rows = [sample["pixels"] for sample in self._samples[:20]]
        reply = client.post("/batch_predict", json={"inputs": rows, "model": "digits"})
        assert reply.status_code == 200, reply.text
        assert reply.json()["failed"] == 0
        return f"digits:{reply.json()['version']}"

    def chat(self) -> dict[str, Any]:
        return {"model": "tutor", "messages": [{"role": "user", "content": QUESTION}], "max_tokens": 40}


def leave(version: Path) -> None:
    """Out of sight in one move, and then file by file: a look at half a version counts as a failure."""
    gone = version.with_name(f".{version.name}.gone")
    version.rename(gone)
    shutil.rmtree(gone)


def test_versions_come_change_and_go_under_load(repository: Path, samples: list[dict[str, Any]]) -> None:
    labels = json.loads((MODELS / "digits/2/model.json").read_text())["labels"]
    with Server(MODEL_PATH=repository, RELOAD_SECONDS=POLL) as server:
        crowd = Crowd(server, samples)
        try:
            wait_for(lambda: len(crowd.replies) == 4, 120)
            arrive(MODELS / "digits" / "2", repository / "digits" / "3", "3", labels=labels[::-1])
            wait_for(lambda: "digits:3" in ready(server), 120)
            arrive(repository / "tutor" / "1", repository / "tutor" / "3")
            wait_for(lambda: "tutor:3" in ready(server), 120)
            for loads in (2, 3):  # the same version with other files, twice
                config = repository / "tutor" / "3" / "tokenizer_config.json"
                spare = config.with_name(".spare")
                spare.write_text(config.read_text() + " ")
                spare.rename(config)
                wait_until_loaded(server, "tutor", "3", loads)
            leave(repository / "tutor" / "1")
            wait_for(lambda: "tutor:1" not in ready(server), 120)
            leave(repository / "tutor" / "3")
            leave(repository / "digits" / "3")
            wait_for(lambda: ready(server) == ["digits:1", "digits:2", "tutor:2"], 120)
            before = sum(crowd.replies.values())
            wait_for(lambda: sum(crowd.replies.values()) > before + 100, 120)
        finally:
            crowd.stop()
        assert crowd.wrong == []
        wait_until_closed(server, 5)
        assert {answered for _, _, answered in crowd.replies} == {"tutor:2", "tutor:3", "digits:2", "digits:3"}
        assert server.client.post("/predict", json={"inputs": QUESTION, "version": "1"}).status_code == 404
        assert "inference_model_load_failures_total{" not in server.client.get("/metrics").text
        assert 'inference_model_info{engine="onnx",kind="generate",model="tutor",version="3"}' not in (
            server.client.get("/metrics").text
        )
        closed = [line["model"] for line in server.lines() if line["message"] == "model closed"]
        assert sorted(closed) == ["digits:3", "tutor:1", "tutor:3", "tutor:3", "tutor:3"]
        assert server.terminate() == 0


def test_a_signal_reloads(repository: Path) -> None:
    with Server(MODEL_PATH=repository) as server:
        arrive(MODELS / "digits" / "1", repository / "digits" / "3", "3")
        time.sleep(1)
        assert "digits:3" not in ready(server)  # RELOAD_SECONDS is 0
        server.process.send_signal(signal.SIGHUP)
        wait_for(lambda: "digits:3" in ready(server), 20)
        shutil.rmtree(repository / "digits" / "3")
        server.process.send_signal(signal.SIGHUP)
        wait_for(lambda: "digits:3" not in ready(server), 20)
        assert server.terminate() == 0


def test_the_same_content_is_no_change(repository: Path) -> None:
    with Server(MODEL_PATH=repository, RELOAD_SECONDS=POLL) as server:
        loads = 'inference_model_loads_total{model="digits",version="2"}'
        for path in (repository / "digits" / "2").iterdir():
            path.touch()
        arrive(repository / "digits" / "1", repository / "digits" / "1")
        time.sleep(6 * POLL)
        assert count(server, loads) == count(server, loads.replace('"2"', '"1"')) == 1


def test_a_torn_copy_is_not_loaded(repository: Path, samples: list[dict[str, Any]]) -> None:
    whole = (MODELS / "digits/1/model.onnx").read_bytes()
    failures = 'inference_model_load_failures_total{model="digits",version="3"}'
    target = repository / "digits" / "3"
    with Server(MODEL_PATH=repository, RELOAD_SECONDS=POLL) as server:
        target.mkdir()
        (target / "model.onnx").write_bytes(whole[:2000])  # no card yet
        wait_for(lambda: count(server, failures) >= 1, 20)
        card = {**json.loads((MODELS / "digits/1/model.json").read_text()), "version": "3"}
        (target / "model.json").write_text(json.dumps(card))
        wait_for(lambda: "sha256 differs" in server.output(), 20)
        tried = count(server, failures)
        time.sleep(4 * POLL)
        assert count(server, failures) == tried  # the same files are not tried again
        assert ready(server) == ["digits:1", "digits:2", "tutor:1", "tutor:2"]
        (target / "model.onnx").write_bytes(whole)
        wait_for(lambda: "digits:3" in ready(server), 20)
        said = [line for line in server.lines() if line["message"] == "models stay as they were"]
        assert all(str(target) in line["reason"] and "traceback" not in line for line in said)


@pytest.mark.parametrize("what", ["replaced by nonsense", "version torn", "folder gone", "folder empty"])
def test_what_cannot_be_loaded_changes_nothing(repository: Path, samples: list[dict[str, Any]], what: str) -> None:
    with Server(MODEL_PATH=repository, RELOAD_SECONDS=POLL) as server:
        before = ready(server)
        if what == "replaced by nonsense":
            (repository / "digits/2/model.onnx").write_bytes(b"nonsense")
        elif what == "version torn":
            torn = repository / "digits/2/.card"
            torn.write_text("{")
            torn.rename(torn.with_name("model.json"))
            leave(repository / "digits" / "1")  # not taken away either while its successor is in trouble
        elif what == "folder gone":
            repository.rename(repository.with_name("elsewhere"))
        else:
            repository.rename(repository.with_name("elsewhere"))
            repository.mkdir()
        wait_for(lambda: "models stay as they were" in server.output(), 20)
        time.sleep(4 * POLL)
        assert ready(server) == before
        for version in ("1", "2"):
            row = {"inputs": samples[0]["pixels"], "model": f"digits:{version}"}
            assert server.client.post("/predict", json=row).json()["predicted_class"] == str(samples[0]["label"])
        assert len([line for line in server.lines() if line["message"] == "models stay as they were"]) == 1
        failed = [line for line in server.client.get("/metrics").text.splitlines() if "load_failures_total{" in line]
        assert len(failed) == 1
        assert failed[0].endswith(" 1.0")


def test_files_cut_under_a_running_server(repository: Path, samples: list[dict[str, Any]]) -> None:
    """In place, as a disk that fills up does it; not noticed, because the models are in memory."""
    shutil.copytree(MODELS / "embedder", repository / "embedder")
    with Server(MODEL_PATH=repository) as server:
        for path in repository.rglob("*"):
            if path.is_file():
                os.truncate(path, path.stat().st_size // 3)
        for _ in range(20):
            row = {"inputs": samples[0]["pixels"], "model": "digits"}
            assert server.client.post("/predict", json=row).json()["predicted_class"] == str(samples[0]["label"])
            assert server.client.post("/predict", json={"inputs": QUESTION, "max_tokens": 20}).status_code == 200
            assert (
                server.client.post("/v1/embeddings", json={"input": QUESTION, "model": "embedder"}).status_code == 200
            )
        server.process.send_signal(signal.SIGHUP)
        wait_for(lambda: "models stay as they were" in server.output(), 20)
        assert server.client.post("/predict", json={"inputs": QUESTION, "max_tokens": 5}).status_code == 200
        assert len(ready(server)) == 5
        assert server.terminate() == 0


def test_weights_in_a_file_of_their_own_cut_under_a_running_server(repository: Path) -> None:
    """Large models keep their weights beside the graph, and onnxruntime would map that file: a cut one would end the process."""
    import onnxruntime

    shutil.rmtree(repository / "tutor" / "2")
    shutil.rmtree(repository / "digits")
    model = repository / "tutor" / "1" / "onnx" / "model.onnx"
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.optimized_model_filepath = str(repository / "split.onnx")
    options.add_session_config_entry("session.optimized_model_external_initializers_file_name", "model.onnx.data")
    options.add_session_config_entry("session.optimized_model_external_initializers_min_size_in_bytes", "100")
    onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    (repository / "split.onnx").rename(model)
    weights = (repository / "model.onnx.data").rename(model.with_name("model.onnx.data"))
    assert weights.stat().st_size > 1_000_000 > model.stat().st_size
    ask = {"inputs": QUESTION, "max_tokens": 20}
    with Server(MODEL_PATH=repository) as server:
        before = server.client.post("/predict", json=ask).json()["text"]
        assert weights.name not in Path(f"/proc/{server.process.pid}/maps").read_text()
        os.truncate(weights, 1000)
        assert server.client.post("/predict", json=ask).json()["text"] == before
        server.process.send_signal(signal.SIGHUP)
        wait_for(lambda: "models stay as they were" in server.output(), 20)
        assert server.client.post("/predict", json=ask).json()["text"] == before


def test_a_version_stays_while_the_one_in_its_place_is_being_copied(
    repository: Path, samples: list[dict[str, Any]]
) -> None:
    with Server(MODEL_PATH=repository, RELOAD_SECONDS=POLL) as server:
        new = repository / "digits" / "3"
        with frozen(server.process):  # two looks at nothing would take the old ones away
            shutil.rmtree(repository / "digits")
            shutil.copytree(MODELS / "digits" / "2", new)
            card = json.loads((new / "model.json").read_text())
            (new / "model.json").write_text(json.dumps({**card, "version": "3"}))
        for size in range(20):  # each look sees other files
            (new / "model.onnx").write_bytes((MODELS / "digits" / "2" / "model.onnx").read_bytes()[: 500 + size])
            reply = server.client.post("/predict", json={"inputs": samples[0]["pixels"], "model": "digits"})
            assert reply.status_code == 200, reply.text
            time.sleep(POLL / 2)
        shutil.copy(MODELS / "digits" / "2" / "model.onnx", new)
        wait_for(lambda: [name for name in ready(server) if name.startswith("digits")] == ["digits:3"], 30)


def test_a_removed_version_finishes_what_it_runs(repository: Path) -> None:
    """A stream that began before its version was taken away comes to its end; then the version is closed."""
    body = {"model": "tutor:2", "messages": [{"role": "user", "content": QUESTION}], "max_tokens": 512}
    body |= {"stream": True, "temperature": 2, "seed": 1}
    with Server(MODEL_PATH=repository, ENGINE_THREADS=1) as server:
        with (
            httpx.Client(base_url=server.url, timeout=30) as client,
            client.stream("POST", "/v1/chat/completions", json=body) as reply,
        ):
            lines = reply.iter_lines()
            next(lines)
            shutil.rmtree(repository / "tutor" / "2")
            server.process.send_signal(signal.SIGHUP)
            wait_for(lambda: "tutor:2" not in ready(server), 10)
            rest = [line for line in lines if line]
        assert rest[-1] == "data: [DONE]"
        assert {json.loads(line[6:])["model"] for line in rest[:-1]} == {"tutor:2"}
        wait_for(lambda: "model closed" in server.output(), 10)


def test_a_removed_version_does_not_wait_for_ever(repository: Path) -> None:
    """A client that never ends its request holds a version that is gone for DRAIN_SECONDS, not longer."""
    from test_manners import NEVER, half_sent

    waits = {"RECEIVE_TIMEOUT_SECONDS": NEVER, "DRAIN_SECONDS": 1}
    with Server(MODEL_PATH=repository, **waits) as server, half_sent(server, b"{" + b" " * 50):
        shutil.rmtree(repository / "tutor" / "2")
        began = time.monotonic()
        server.process.send_signal(signal.SIGHUP)
        wait_for(lambda: "model closed" in server.output(), 60)
        assert time.monotonic() - began > 0.9


def test_memory_does_not_grow_with_reloads(repository: Path) -> None:
    def resident() -> float:
        return count(server, "process_resident_memory_bytes") / 1e6

    config = repository / "tutor" / "2" / "tokenizer_config.json"
    sizes = []
    with Server(MODEL_PATH=repository / "tutor") as server:
        for number in range(2, 22):
            config.write_text(config.read_text() + " ")
            server.process.send_signal(signal.SIGHUP)
            wait_until_loaded(server, "tutor", "2", number)
            wait_until_closed(server, number - 1)
            sizes.append(resident())
    assert max(sizes) < sizes[0] + 40, sizes  # it was 300 when the cache's memory went through malloc


class Starting:
    """A server process that need not get ready."""

    def __init__(self, **settings: object) -> None:
        self.port = free_port()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "inference_server"],
            env=environment(HOST="127.0.0.1", PORT=self.port, **settings),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def get(self, path: str) -> httpx.Response | None:
        try:
            return httpx.get(f"http://127.0.0.1:{self.port}{path}", timeout=30)
        except httpx.TransportError:
            assert self.process.poll() is None, self.process.communicate()
            return None

    def end(self, sig: int | None = None) -> tuple[int, str, str]:
        if sig is not None:
            self.process.send_signal(sig)
        out, err = self.process.communicate(timeout=START_SECONDS)
        return self.process.returncode, out, err


@pytest.mark.parametrize("first", ["missing", "empty", "half"])
def test_models_that_come_late(tmp_path: Path, first: str) -> None:
    folder = tmp_path / "models"
    if first != "missing":
        folder.mkdir()
    if first == "half":
        shutil.copytree(MODELS / "digits" / "2", folder / "digits" / "2")
        (folder / "digits/2/model.onnx").write_bytes(b"half")
    starting = Starting(MODEL_PATH=folder, MODEL_WAIT_SECONDS=60)
    try:
        wait_for(lambda: (reply := starting.get("/ready")) is not None and "waiting_for" in reply.json(), START_SECONDS)
        ready, health = starting.get("/ready"), starting.get("/health")
        assert ready
        assert health
        assert (ready.status_code, ready.json()["phase"], health.status_code) == (503, "loading", 200)
        answer = httpx.post(f"http://127.0.0.1:{starting.port}/predict", json={"inputs": [0] * 64}, timeout=30)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "loading")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        arrive(MODELS / "digits", folder / "digits")
        wait_for(lambda: (reply := starting.get("/ready")) is not None and reply.status_code == 200, 20)
        reply = starting.get("/ready")
        assert reply
        assert reply.json() == {"ready": True, "phase": "ready", "models": ["digits:1", "digits:2"]}
    finally:
        code, out, err = starting.end(signal.SIGTERM)
    assert (code, err) == (0, "")
    assert "waiting for the models" in out


def test_models_that_never_come(tmp_path: Path) -> None:
    ended = run("serve", MODEL_PATH=tmp_path / "no", MODEL_WAIT_SECONDS=1.5, HOST="127.0.0.1", PORT=free_port())
    assert ended.returncode == 1
    assert ended.stderr == (
        f"inference-server: MODEL_PATH={tmp_path / 'no'}: there is no such folder. It can be a model's folder, or a folder of "
        "<name>/<version>/ folders. (MODEL_WAIT_SECONDS=1.5 are over)\n"
    )


def test_sigterm_while_waiting_for_models(tmp_path: Path) -> None:
    starting = Starting(MODEL_PATH=tmp_path / "no", MODEL_WAIT_SECONDS=600)
    wait_for(lambda: starting.get("/health") is not None, START_SECONDS)
    code, out, err = starting.end(signal.SIGTERM)  # within START_SECONDS, a tenth of what it would wait
    assert (code, err) == (0, "")
    assert json.loads(out.splitlines()[-1])["message"] == "stopped"


@pytest.mark.parametrize("delay", [0.0, 0.05, 0.1, 0.2, 0.3])
def test_sigterm_while_loading(repository: Path, delay: float) -> None:
    """At any moment of the load: no crash of a library that is left in the middle, exit code 0."""
    starting = Starting(MODEL_PATH=repository)
    wait_for(lambda: starting.get("/health") is not None, START_SECONDS)
    time.sleep(delay)
    code, _, err = starting.end(signal.SIGTERM)
    assert (code, err) == (0, "")


@pytest.mark.parametrize("delay", [0.0, 0.05, 0.1, 0.2])
def test_sigterm_during_a_reload(repository: Path, delay: float) -> None:
    with Server(MODEL_PATH=repository) as server:
        for version in ("3", "4", "5"):
            arrive(repository / "tutor" / "1", repository / "tutor" / version)
        server.process.send_signal(signal.SIGHUP)
        time.sleep(delay)
        assert server.terminate() == 0
        lines = server.lines()
        assert lines[-1]["message"] == "stopped"
        assert not [line for line in lines if line["level"] == "error"]


def test_sighup_while_loading_is_no_end(repository: Path) -> None:
    starting = Starting(MODEL_PATH=repository)
    status = Path(f"/proc/{starting.process.pid}/status")
    # Before its first line of Python the kernel's default holds; as process 1 of a container that does nothing.
    wait_for(lambda: int(status.read_text().split("SigIgn:")[1].split()[0], 16) & 1 == 1, START_SECONDS)
    for _ in range(20):
        starting.process.send_signal(signal.SIGHUP)
        time.sleep(0.05)
        if starting.process.poll() is not None:
            break
    wait_for(lambda: (reply := starting.get("/ready")) is not None and reply.status_code == 200, START_SECONDS)
    assert starting.end(signal.SIGTERM)[0] == 0
