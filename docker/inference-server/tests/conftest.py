"""What the tests share: the committed models, real digits, and a real server process on a free port."""

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
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx
import hypothesis
import pytest

ROOT = Path(__file__).resolve().parents[1]
MODELS = ROOT / "models"
PASSED_ON = ("PATH", "HOME", "LANG", "TMPDIR", "LD_LIBRARY_PATH", "PYTHONDONTWRITEBYTECODE")
# An example may take as long as a busy machine needs for it.
hypothesis.settings.register_profile("patient", deadline=None)
hypothesis.settings.load_profile("patient")
START_SECONDS = 60  # a loaded machine; how fast it starts is measured elsewhere


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
    """``inference-server ARGUMENTS`` to its end."""
    command = [sys.executable, "-m", "inference_server", *arguments]
    return subprocess.run(command, env=environment(**settings), capture_output=True, text=True, timeout=START_SECONDS)


class Server:
    """A server process. Its output goes to a file: a pipe nobody reads would stop it."""

    def __init__(self, **settings: object) -> None:
        self.port = int(str(settings.get("AIP_HTTP_PORT") or free_port()))
        self.url = f"http://127.0.0.1:{self.port}"
        self.settings = {"HOST": "127.0.0.1", "PORT": self.port, **settings}
        self._folder = tempfile.TemporaryDirectory()
        self._output = Path(self._folder.name) / "output"
        with self._output.open("w") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "inference_server"],
                env=environment(**self.settings),
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        self.client = httpx.Client(base_url=self.url, timeout=30)
        try:
            wait_for(self.is_ready, START_SECONDS)
        except TimeoutError:
            self.kill()
            pytest.fail(f"the server did not get ready:\n{self.output()}")

    def is_ready(self) -> bool:
        """Whether /ready says so."""
        if self.process.poll() is not None:
            pytest.fail(f"the server ended with {self.process.returncode}:\n{self.output()}")
        try:
            return self.client.get("/ready").status_code == 200
        except httpx.TransportError:
            return False

    def output(self) -> str:
        """Everything it has written so far."""
        return self._output.read_text(encoding="utf-8")

    def lines(self) -> list[dict[str, Any]]:
        """Its log, parsed; a line that is not JSON fails the test."""
        return [json.loads(line) for line in self.output().splitlines()]

    def terminate(self) -> int:
        """SIGTERM, then its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=60)

    def kill(self) -> None:
        """End it, whatever state it is in."""
        self.client.close()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
        self.process.wait(timeout=10)
        self._folder.cleanup()

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()


@contextmanager
def frozen(process: subprocess.Popen[Any]) -> Iterator[None]:
    """It stands still: what is sent to it meanwhile, however slowly, comes at once."""
    process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        process.send_signal(signal.SIGCONT)


def wait_for(condition: Callable[[], bool], seconds: float) -> None:
    """Ask until it holds; on a busy machine for longer than it takes. Raises TimeoutError."""
    end = time.monotonic() + max(seconds, 60)
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError
        time.sleep(0.02)


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """One server with the committed models, shared by the tests that leave it as it was."""
    with Server(LOG_LEVEL="debug") as running:
        yield running


@pytest.fixture(scope="session")
def samples() -> list[dict[str, Any]]:
    """Held-out digits: ``pixels`` (64 numbers) and ``label``."""
    loaded: list[dict[str, Any]] = json.loads((MODELS / "digits" / "samples.json").read_text(encoding="utf-8"))
    return loaded


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    """A copy of digits version 2 to spoil."""
    return Path(shutil.copytree(MODELS / "digits" / "2", tmp_path / "digits" / "2"))


@pytest.fixture
def tutor(tmp_path: Path) -> Path:
    """A copy of the tutor to spoil."""
    return Path(shutil.copytree(MODELS / "tutor" / "1", tmp_path / "tutor" / "1"))


def from_package(package: str, find: Callable[[], str | None]) -> str:
    """What ``find`` finds once this package of Debian or Ubuntu is there: installed where that may be done, else the test is skipped."""
    found = find()
    if found is None:
        missing = f"{package} is not here (Debian's package of that name)"
        packages = pytest.importorskip(
            "course_lib.host.packages", reason=missing
        )  # the server's tests may be alone here
        try:
            packages.install(package)
        except packages.CourseError as error:
            pytest.skip(f"{missing}: {error}")
        found = find()
    assert found
    return found
