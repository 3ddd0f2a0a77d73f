"""What the tests share: real Chroma, the real inference server, real Redis, and the service itself, each as a process on a free port."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import pytest

ROOT = Path(__file__).resolve().parents[1]
CHECKOUT = ROOT.parents[1]
INFERENCE = ROOT.parent / "inference-server"
PASSED_ON = ("PATH", "HOME", "LANG", "TMPDIR", "LD_LIBRARY_PATH", "PYTHONDONTWRITEBYTECODE")
START_SECONDS = 60  # a loaded machine
RUN_CHROMA = "import sys, chromadb_rust_bindings as chroma; chroma.cli(['chroma', *sys.argv[1:]])"

VOLUMES = """# Volumes

## Volume

A volume is storage that Docker manages outside the container's layers, so its data outlives the container.

## Bind mount

A bind mount shows a folder of the host inside a container.

## Pruning

Use docker volume prune to delete volumes that no container uses; the data is gone for good.
"""


_PORTS = iter(random.SystemRandom().sample(range(20_000, 30_000), 10_000))


def free_port() -> int:
    """A port nobody listens on, outside those that the system gives away by itself, and none that was given here before."""
    for port in _PORTS:
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise OSError("no port is free")


def environment(**settings: object) -> dict[str, str]:
    """This process's environment without settings of ours, plus the given ones."""
    base = {key: value for key, value in os.environ.items() if key in PASSED_ON}
    return {**base, "PYTHONPATH": str(ROOT), **{key: str(value) for key, value in settings.items()}}


def run(*arguments: str, **settings: object) -> subprocess.CompletedProcess[str]:
    """``rag-service ARGUMENTS`` to its end."""
    command = [sys.executable, "-m", "rag_service", *arguments]
    return subprocess.run(command, env=environment(**settings), capture_output=True, text=True, timeout=START_SECONDS)


def wait_for(condition: Callable[[], bool], seconds: float = START_SECONDS) -> None:
    """Ask until it holds. Raises TimeoutError."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError
        time.sleep(0.02)


class Process:
    """A process of a service. Its output goes to a file: a pipe nobody reads would stop it."""

    def __init__(self, command: list[str], env: dict[str, str], port: int, probe: str, cwd: Path | None = None) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.client = httpx.Client(base_url=self.url, timeout=30)
        self._command, self._env, self._cwd, self._probe = command, env, cwd, probe
        self._folder = tempfile.TemporaryDirectory()
        self._output = Path(self._folder.name) / "output"
        self.start()

    def start(self) -> None:
        """Start it, or start it again after ``stop``."""
        with self._output.open("a") as output:
            self.process = subprocess.Popen(
                self._command, env=self._env, cwd=self._cwd, stdout=output, stderr=subprocess.STDOUT
            )
        try:
            wait_for(self._answers)
        except TimeoutError:
            self.close()
            pytest.fail(f"{self._command} did not answer:\n{self.output()}")

    def _answers(self) -> bool:
        if self.process.poll() is not None:
            pytest.fail(f"{self._command} ended with {self.process.returncode}:\n{self.output()}")
        if not self._probe:
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", self.port)) == 0
        try:
            return self.client.get(self._probe).status_code == 200
        except httpx.TransportError:
            return False

    def output(self) -> str:
        """Everything it has written so far."""
        return self._output.read_text(encoding="utf-8")

    def lines(self) -> list[dict[str, Any]]:
        """Its log, parsed; a line that is not JSON fails the test."""
        return [json.loads(line) for line in self.output().splitlines()]

    def freeze(self) -> None:
        """It keeps its connections and says nothing any more."""
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """It goes on."""
        self.process.send_signal(signal.SIGCONT)

    def stop(self, sig: int = signal.SIGKILL) -> int:
        """End it; its exit code."""
        if self.process.poll() is None:
            self.thaw()
            self.process.send_signal(sig)
        return self.process.wait(timeout=60)

    def close(self) -> None:
        """End it and forget what it wrote."""
        self.client.close()
        self.stop()
        self._folder.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Rag(Process):
    """The service, with a collection of its own unless the settings name one."""

    def __init__(self, chroma: Process, inference: Process, **settings: object) -> None:
        port = free_port()
        self.settings = {
            "HOST": "127.0.0.1",
            "PORT": port,
            "CHROMA_URL": chroma.url,
            "INFERENCE_URL": f"{inference.url}/v1",
            "COLLECTION": f"test-{uuid.uuid4().hex[:12]}",
            **settings,
        }
        super().__init__([sys.executable, "-m", "rag_service"], environment(**self.settings), port, "/health")

    def add(self, source: str, text: str) -> int:
        """Take in a document; how many passages it has."""
        reply = self.client.post("/documents", json={"source": source, "text": text})
        assert reply.status_code == 200, reply.text
        return int(reply.json()["chunks"])

    def ask(self, question: str, **more: object) -> dict[str, Any]:
        """An answer."""
        reply = self.client.post("/answer", json={"question": question, **more})
        assert reply.status_code == 200, reply.text
        found: dict[str, Any] = reply.json()
        return found

    def sources(self) -> dict[str, int]:
        """What it lists."""
        return {each["source"]: each["chunks"] for each in self.client.get("/documents").json()}

    def metric(self, series: str) -> float:
        """The value of a series, written as Prometheus writes it."""
        for line in self.client.get("/metrics").text.splitlines():
            if line.startswith(f"{series} "):
                return float(line.rsplit(" ", 1)[1])
        raise KeyError(series)


def make_chroma(folder: Path) -> Process:
    """Chroma's own server, from its package."""
    environments = pytest.importorskip(
        "course_lib.host.environments", reason="Chroma's environment is made by the course"
    )
    do = "Let this machine reach a package index, once: it is kept in .cache."
    python = environments.ensure("chroma", Path(__file__).with_name("chroma.txt"), do=do) / "bin" / "python"
    port = free_port()
    options = ["run", "--path", str(folder), "--host", "127.0.0.1", "--port", str(port)]
    return Process([str(python), "-c", RUN_CHROMA, *options], environment(), port, "/api/v2/heartbeat", folder)


def make_inference(**settings: object) -> Process:
    """The course's inference server with its own models."""
    port = free_port()
    env = environment(HOST="127.0.0.1", PORT=port, **settings) | {"PYTHONPATH": str(INFERENCE)}
    return Process([sys.executable, "-m", "inference_server"], env, port, "/ready")


def make_redis(folder: Path, *options: str) -> Process:
    """Debian's Redis, which keeps nothing on disk."""
    program = from_package("redis-server", lambda: shutil.which("redis-server"))
    port = free_port()
    command = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder), *options]
    return Process(command, environment(), port, "")


@pytest.fixture(scope="session")
def chroma(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """One Chroma for the tests that leave it running."""
    with make_chroma(tmp_path_factory.mktemp("chroma")) as running:
        yield running


@pytest.fixture(scope="session")
def inference() -> Iterator[Process]:
    """One inference server for the tests that leave it running."""
    with make_inference() as running:
        yield running


@pytest.fixture(scope="session")
def rag(chroma: Process, inference: Process) -> Iterator[Rag]:
    """One service with a document, shared by the tests that leave it as it was."""
    with Rag(chroma, inference, LOG_LEVEL="debug") as running:
        running.add("docs/volumes.md", VOLUMES)
        yield running


@pytest.fixture
def fresh(chroma: Process, inference: Process) -> Iterator[Rag]:
    """A service without documents, to change."""
    with Rag(chroma, inference) as running:
        yield running


def error(reply: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The error in a reply, held against its shape; its sentence ends as one."""
    assert reply.status_code == status, reply.text
    body = reply.json()
    assert body.keys() == {"error"}
    found: dict[str, Any] = body["error"]
    assert found.keys() == {"message", "type", "param", "code"}
    assert found["code"] == code
    assert found["type"] == ("invalid_request_error" if status < 500 else "server_error")
    assert found["message"].endswith(".")
    assert "Traceback" not in reply.text
    return found


def from_package(package: str, find: Callable[[], str | None]) -> str:
    """What ``find`` finds once this package of Debian or Ubuntu is there: installed where that may be done, else the test is skipped."""
    found = find()
    if found is None:
        missing = f"{package} is not here (Debian's package of that name)"
        packages = pytest.importorskip("course_lib.host.packages", reason=missing)
        try:
            packages.install(package)
        except packages.CourseError as refused:
            pytest.skip(f"{missing}: {refused}")
        found = find()
    assert found
    return found
