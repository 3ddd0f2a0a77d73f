"""What the tests share: a real receiver process on free ports, and OTLP bodies."""

from __future__ import annotations

import json
import os
import random
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx
import pytest

ROOT = Path(__file__).resolve().parents[1]
STACK = ROOT.parent / "stack"
PASSED_ON = ("PATH", "HOME", "LANG", "TMPDIR", "LD_LIBRARY_PATH", "PYTHONDONTWRITEBYTECODE")
START_SECONDS = 60  # a loaded machine
SECOND = 10**9


_PORTS = iter(random.SystemRandom().sample(range(20_000, 30_000), 10_000))


def free_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    """A port nobody listens on, outside those that the system gives away by itself, and none that was given here before."""
    for port in _PORTS:
        with socket.socket(type=kind) as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise OSError("no port is free")


def wait_for(condition: Callable[[], object], seconds: float = 20) -> None:
    """Ask until it holds. Raises TimeoutError."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError
        time.sleep(0.02)


def environment(root: Path, **settings: object) -> dict[str, str]:
    """This process's environment without settings of ours, plus the given ones."""
    base = {key: value for key, value in os.environ.items() if key in PASSED_ON}
    return {**base, "PYTHONPATH": str(root), **{key: str(value) for key, value in settings.items()}}


class Process:
    """A server as a process of its own. Its output goes to a file: a pipe nobody reads would stop it."""

    def __init__(self, module: str, root: Path, url: str, path: str, **settings: object) -> None:
        self.url = url
        self._folder = tempfile.TemporaryDirectory()
        self._output = Path(self._folder.name) / "output"
        with self._output.open("w") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", module],
                env=environment(root, **settings),
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        self.client = httpx.Client(base_url=url, timeout=30)
        try:
            wait_for(lambda: self._answers(path), START_SECONDS)
        except TimeoutError:
            self.kill()
            pytest.fail(f"{module} did not get ready:\n{self.output()}")

    def _answers(self, path: str) -> bool:
        if self.process.poll() is not None:
            pytest.fail(f"it ended with {self.process.returncode}:\n{self.output()}")
        try:
            return self.client.get(path).status_code == 200
        except httpx.TransportError:
            return False

    def output(self) -> str:
        """Everything it has written so far."""
        return self._output.read_text(encoding="utf-8")

    def terminate(self) -> int:
        """SIGTERM, then its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=60)

    def kill(self) -> None:
        """End it, whatever state it is in."""
        self.client.close()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(timeout=10)
        self._folder.cleanup()

    def __enter__(self) -> Any:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()


class Receiver(Process):
    """A trace receiver."""

    def __init__(self, **settings: object) -> None:
        self.port, self.syslog_port = free_port(), free_port(socket.SOCK_DGRAM)
        given = {"HOST": "127.0.0.1", "PORT": self.port, "SYSLOG_PORT": self.syslog_port, **settings}
        super().__init__("trace_receiver", ROOT, f"http://127.0.0.1:{self.port}", "/health", **given)

    def post(self, body: object, **headers: str) -> httpx.Response:
        """JSON to /v1/traces."""
        content = json.dumps(body).encode()  # httpx's own way refuses what is hostile
        return self.client.post("/v1/traces", content=content, headers={"Content-Type": "application/json", **headers})

    def lines(self, *lines: str | bytes) -> None:
        """Each as a datagram to the syslog port."""
        with socket.socket(type=socket.SOCK_DGRAM) as sender:
            for line in lines:
                data = line.encode() if isinstance(line, str) else line
                sender.sendto(data, ("127.0.0.1", self.syslog_port))

    def trace(self, id: str) -> dict[str, Any]:
        """GET /traces/{id}, once it is there."""
        return self.whole(id, 1)

    def whole(self, id: str, spans: int) -> dict[str, Any]:
        """GET /traces/{id}, once it has so many spans."""
        wait_for(lambda: self.client.get(f"/traces/{id}").json().get("span_count", 0) >= spans)
        found: dict[str, Any] = self.client.get(f"/traces/{id}").json()
        return found

    def metric(self, series: str) -> float:
        """The value of one series at /metrics."""
        lines = self.client.get("/metrics").text.splitlines()
        return next(float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"{series} "))


@pytest.fixture(scope="session")
def receiver() -> Iterator[Receiver]:
    """One receiver, shared by the tests that look only at their own traces."""
    with Receiver() as running:
        yield running


def new_trace() -> str:
    """A trace id."""
    return secrets.token_hex(16)


def span(trace: str, id: str = "", **more: object) -> dict[str, object]:
    """A span of a second, as OTLP's JSON has it."""
    now = 1_800_000_000 * SECOND
    whole = {"traceId": trace, "spanId": id or secrets.token_hex(8), "name": "work", "kind": 2}
    return {**whole, "startTimeUnixNano": str(now), "endTimeUnixNano": str(now + SECOND), **more}


def request(*spans: dict[str, object], service: str = "rag") -> dict[str, object]:
    """An ExportTraceServiceRequest in JSON."""
    name = {"key": "service.name", "value": {"stringValue": service}}
    return {"resourceSpans": [{"resource": {"attributes": [name]}, "scopeSpans": [{"spans": list(spans)}]}]}
