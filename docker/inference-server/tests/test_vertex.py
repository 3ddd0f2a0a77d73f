"""Vertex AI's contract: its variables, its routes, and a model in a bucket of a real storage emulator."""

import json
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from conftest import MODELS, Server, environment, free_port, run, wait_for

Samples = list[dict[str, Any]]


def predict(server: Server, body: Any, status: int = 200, route: str = "/vertex/predict") -> Any:
    reply = server.client.post(route, json=body)
    assert reply.status_code == status, reply.text
    return reply.json()


def test_predictions(server: Server, samples: Samples) -> None:
    row = samples[0]["pixels"]
    answer = predict(server, {"instances": [row, {"pixels": row}, [1]], "parameters": None})
    assert set(answer) == {"predictions"}
    assert [item.get("predicted_class") for item in answer["predictions"]] == [samples[0]["label"]] * 2 + [None]
    texts = {
        "instances": ["What is a pod?", {"prompt": "What is a layer?"}],
        "parameters": {"maxOutputTokens": 4, "topP": 0.9},
    }
    assert [item["usage"]["completion_tokens"] for item in predict(server, texts)["predictions"]] == [4, 4]
    assert server.client.get("/vertex/health").status_code == 200


def test_raw_predict(server: Server, samples: Samples) -> None:
    chat = {"messages": [{"role": "user", "content": "What is a pod?"}], "max_tokens": 4}
    assert predict(server, chat)["object"] == "chat.completion"
    assert predict(server, {"inputs": samples[0]["pixels"]})["predicted_class"] == samples[0]["label"]


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ([], 422, "The body is a JSON object"),
        ({}, 422, "none of: instances"),
        ({"instances": {}}, 422, "instances is a list"),
        ({"instances": []}, 422, "instances holds nothing"),
        ({"instances": ["x"], "parameters": {"temperature": 9}}, 422, "parameters.temperature"),
        ({"instances": [[0]], "parameters": {"model": "digits", "version": "7"}}, 404, "digits has no version '7'"),
    ],
)
def test_bad_bodies(server: Server, body: Any, status: int, said: str) -> None:
    assert said in predict(server, body, status)["error"]["message"]
    reply = server.client.post("/vertex/predict", content=b"1,2", headers={"Content-Type": "text/csv"})
    assert reply.status_code == 415


def test_as_vertex_starts_it(samples: Samples, tmp_path: Path) -> None:
    """All four variables; the routes are those that we have ourselves, as google-cloud-aiplatform's LocalModel sets them."""
    shutil.copytree(MODELS / "digits" / "1", tmp_path / "digits" / "1")
    port = free_port()
    with Server(
        PORT=free_port(),
        AIP_HTTP_PORT=port,
        AIP_HEALTH_ROUTE="/health",
        AIP_PREDICT_ROUTE="/predict",
        AIP_STORAGE_URI=f"file://{tmp_path}",
    ) as running:
        assert running.client.get("/health").json() == {"status": "ok"}
        row = samples[0]["pixels"]
        assert predict(running, {"instances": [row]}, route="/predict")["predictions"][0]["version"] == "1"
        assert predict(running, {"inputs": row}, route="/predict")["version"] == "1"
        probe = run("health", "--ready", AIP_HTTP_PORT=port, PORT=1)
        assert (probe.returncode, f":{port}/ready answered 200" in probe.stdout) == (0, True)
        assert running.terminate() == 0


@contextmanager
def bucket(folder: Path, files: dict[str, Path]) -> Iterator[str]:
    """A storage emulator with one bucket, ``models``, that holds these objects; its address."""
    port = free_port()
    command = [sys.executable, "-m", "gcp_storage_emulator", "--data-dir", str(folder), "start", "--host", "127.0.0.1"]
    process = subprocess.Popen(
        [*command, "--port", str(port), "--default-bucket", "models"],
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        url = f"http://127.0.0.1:{port}"

        def answers() -> bool:
            try:
                return httpx.get(f"{url}/storage/v1/b/models").status_code == 200
            except httpx.TransportError:
                return False

        wait_for(answers, 30)
        for name, path in files.items():
            request = urllib.request.Request(
                f"{url}/upload/storage/v1/b/models/o?uploadType=media&name={quote(name, safe='')}",
                data=path.read_bytes(),
                headers={"Content-Type": "application/octet-stream"},
            )
            urllib.request.urlopen(request, timeout=10).close()
        yield url
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def test_a_model_in_a_bucket(tmp_path: Path, samples: Samples) -> None:
    folder = MODELS / "digits" / "1"
    files = {f"run 7/model/{path.name}": path for path in folder.iterdir()}
    with bucket(tmp_path / "storage", files) as url:
        settings = {"STORAGE_EMULATOR_HOST": url, "TMPDIR": tmp_path}
        with Server(AIP_STORAGE_URI="gs://models/run%207/model", **settings) as running:
            assert predict(running, {"instances": [samples[0]["pixels"]]})["predictions"][0]["version"] == "1"
            copied = next(tmp_path.glob("model-*"))
            assert (copied / "model.onnx").read_bytes() == (folder / "model.onnx").read_bytes()
            assert running.terminate() == 0
            assert not copied.exists()
        for uri, said in (
            ("gs://models/nothing", "gs://models/nothing holds nothing"),
            ("gs://elsewhere/model", "the storage service answered 404"),
        ):
            ended = run("serve", AIP_STORAGE_URI=uri, HOST="127.0.0.1", PORT=free_port(), **settings)
            assert ended.returncode == 1
            assert said in ended.stderr
            assert len(ended.stderr.splitlines()) == 1


def test_a_bucket_without_google() -> None:
    """Off Google Cloud there is no token: one sentence, and no waiting for ever."""
    start = time.monotonic()
    settings = {"AIP_STORAGE_URI": "gs://models/x", "GCE_METADATA_HOST": f"127.0.0.1:{free_port()}"}
    ended = run("serve", HOST="127.0.0.1", PORT=free_port(), **settings)
    assert ended.returncode == 1
    assert "gs:// is read on Google Cloud, or with STORAGE_EMULATOR_HOST" in ended.stderr
    assert time.monotonic() - start < 20


def test_openapi_lists_the_routes(server: Server) -> None:
    paths = json.loads(server.client.get("/openapi.json").text)["paths"]
    assert {"/vertex/predict", "/vertex/health", "/invocations", "/ping", "/v2/models/{name}/infer"} <= set(paths)
