"""The flawed service by itself: learns, answers, dies in part, and ends when it is told to."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from course_lib import waits
from course_lib.exercises.ticket_router import QUESTIONS, SERVICE

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the service forks its model; containers are Linux")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("trained") / "model.json"
    command = [sys.executable, "-B", str(SERVICE / "train.py"), f"--out={path}", "--longest=4", "--smoothing=0.1"]
    subprocess.run(command, check=True)
    return path


@pytest.fixture
def service(model: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    env = {**os.environ, "PORT": str(port), "MODEL_PATH": str(model)}
    process = subprocess.Popen([sys.executable, "-B", str(SERVICE / "service.py")], env=env, stdout=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"

    def answers() -> None:
        assert process.poll() is None
        try:
            httpx.get(f"{url}/healthz")
        except httpx.TransportError as error:
            raise waits.NotYet(str(error)) from None

    try:
        waits.until(answers, what="the service to answer", timeout=60)
        yield process, url
    finally:
        process.kill()
        process.wait()


def test_the_questions_of_the_checks_are_not_in_the_training_data() -> None:
    lines = (SERVICE / "data" / "tickets.tsv").read_text().splitlines()
    known = {line.split("\t")[1].lower() for line in lines}
    assert len(lines) == len(known) == 150
    assert not known & {text.lower() for text, _ in QUESTIONS}


def test_the_search_over_settings_is_worth_its_seconds(tmp_path: Path) -> None:
    out = tmp_path / "model.json"
    command = [sys.executable, "-B", str(SERVICE / "train.py"), f"--out={out}"]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    share = int(said.split("smoothing")[1].split(",")[1].split("%")[0])
    assert share >= 85, said
    assert len(json.loads(out.read_text())["labels"]) == 5


def test_it_answers_and_names_its_weights(service: tuple[subprocess.Popen[bytes], str]) -> None:
    _, url = service
    for text, label in QUESTIONS:
        answer = httpx.post(f"{url}/route", json={"text": text}).json()
        assert answer["label"] == label, answer
        assert 0.2 < answer["confidence"] <= 1
        assert len(answer["model"]) == 12
    assert httpx.post(f"{url}/route", content=b"no json").status_code == 400
    assert httpx.get(f"{url}/other").status_code == 404


def test_http_outlives_the_model(service: tuple[subprocess.Popen[bytes], str]) -> None:
    process, url = service
    (worker,) = psutil.Process(process.pid).children()
    assert Path(f"/proc/{worker.pid}/comm").read_text().strip() == "model-worker"
    worker.kill()
    assert httpx.post(f"{url}/route", json={"text": "x"}).status_code == 503
    assert httpx.get(f"{url}/healthz").status_code == 200


def test_a_silent_model_is_no_model(service: tuple[subprocess.Popen[bytes], str]) -> None:
    process, url = service
    (worker,) = psutil.Process(process.pid).children()
    worker.send_signal(signal.SIGSTOP)
    assert httpx.post(f"{url}/route", json={"text": "x"}, timeout=10).status_code == 503
    worker.kill()


def test_it_ends_at_once_and_takes_the_model_along(service: tuple[subprocess.Popen[bytes], str]) -> None:
    process, _ = service
    (worker,) = psutil.Process(process.pid).children()
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0
    assert not worker.is_running()


def test_without_a_model_it_says_where_it_looked(tmp_path: Path) -> None:
    env = {**os.environ, "MODEL_PATH": str(tmp_path / "none.json")}
    done = subprocess.run([sys.executable, "-B", str(SERVICE / "service.py")], env=env, capture_output=True, text=True)
    assert done.returncode == 1
    assert f"no model at {tmp_path / 'none.json'}" in done.stderr
