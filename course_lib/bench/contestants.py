"""Who takes part in `course bench serve`: our server and its peers, each started as its own documentation says."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import httpx
import psutil

from course_lib import waits
from course_lib.bench.workload import SERVER, Text
from course_lib.errors import CourseError
from course_lib.host import environments

Task = Literal["generate", "stream", "classify"]
_PEERS = Path(__file__).parent / "peers"
LOCK = _PEERS / "requirements.txt"
_READY_SECONDS = 120
_PASSED_ON = ("PATH", "HOME", "LANG", "TMPDIR", "LD_LIBRARY_PATH")


@dataclass(frozen=True)
class Contestant:
    """A server: how it is started, where it is asked, and in which shape.

    `variants` are settings among which a short run before the measurement chooses the fastest; ours has none, as it has to be
    right by default.
    """

    name: str
    command: Callable[[int, Mapping[str, str]], list[str]]
    """Port and the chosen variant to the command line."""
    ready: str
    paths: Mapping[Task, str]
    text_body: Callable[[Text, bool], Any]
    row_body: Callable[[list[float]], Any]
    marker: str
    """What stands before a piece of text in a streamed event."""
    variants: tuple[Mapping[str, str], ...] = ({},)
    one_process_for_all_tasks: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)
    folder: Path | None = None


def _chat(text: Text, stream: bool) -> Any:
    prompt, tokens = text
    body = {"messages": [{"role": "user", "content": prompt}], "max_tokens": tokens, "temperature": 0}
    return {**body, "stream": True} if stream else body


def _plain(text: Text, stream: bool) -> Any:
    return {"prompt": text[0], "max_tokens": text[1]}


def ours(repository: Path) -> Contestant:
    """The server process itself, with no setting but where the model is."""
    return Contestant(
        name="ours",
        command=lambda port, variant: [sys.executable, "-m", "inference_server"],
        ready="/ready",
        paths={"generate": "/v1/chat/completions", "stream": "/v1/chat/completions", "classify": "/predict"},
        text_body=_chat,
        row_body=lambda row: {"inputs": row, "model": "digits"},
        marker='"content":"',
        one_process_for_all_tasks=True,
        environment={"PYTHONPATH": str(SERVER), "MODEL_PATH": str(repository / "models"), "HOST": "127.0.0.1"},
    )


def peers(repository: Path, cpus: int) -> list[Contestant]:
    """LitServe, BentoML, Flask behind gunicorn, and FastAPI, from their own environment."""
    programs = environment() / "bin"
    one = {"WORKERS": "1", "THREADS": str(cpus)}
    many = {"WORKERS": str(cpus), "THREADS": "1"}
    batching = ({**one, "BATCH": "32"}, {**one, "BATCH": "16"}, {**many, "BATCH": "16"})
    shared: dict[str, Any] = {
        "paths": {"generate": "/generate", "stream": "/stream", "classify": "/classify"},
        "text_body": _plain,
        "row_body": lambda row: {"inputs": row},
        "marker": '"text": "',
        "environment": {
            "TEXT_MODEL": str(repository / "flat"),
            "CLASS_MODEL": str(repository / "models" / "digits" / "1"),
            "PYTHONPATH": str(_PEERS),
            "PATH": f"{programs}:{os.environ['PATH']}",
            "BENTOML_HOME": str(repository / "bentoml"),
            "BENTOML_DO_NOT_TRACK": "True",
            "DO_NOT_TRACK": "1",
            "ORT_DISABLE_TELEMETRY": "1",
        },
        "folder": _PEERS,
    }

    def bento_text(text: Text, stream: bool) -> Any:
        return _plain(text, stream) if stream else {"requests": [_plain(text, stream)]}

    def gunicorn(port: int, variant: Mapping[str, str]) -> list[str]:
        address = f"--bind=127.0.0.1:{port}"
        workers = f"--workers={variant['WORKERS']}"
        return [str(programs / "gunicorn"), workers, address, "--timeout=30", "flask_app:create_production_app()"]

    def uvicorn(port: int, variant: Mapping[str, str]) -> list[str]:
        return [str(programs / "uvicorn"), f"--port={port}", f"--workers={variant['WORKERS']}", "fastapi_app:app"]

    def bento(port: int, variant: Mapping[str, str]) -> list[str]:
        return [str(programs / "bentoml"), "serve", "bentoml_app:Peer", f"--port={port}", "--host=127.0.0.1"]

    return [
        Contestant(
            name="litserve",
            command=lambda port, variant: [str(programs / "python"), "litserve_app.py"],
            ready="/health",
            variants=batching,
            **shared,
        ),
        Contestant(
            name="bentoml",
            command=bento,
            ready="/readyz",
            variants=batching,
            **shared | {"text_body": bento_text, "row_body": lambda row: {"requests": [{"inputs": row}]}},
        ),
        Contestant(
            name="flask",
            command=gunicorn,
            ready="/health",
            variants=({"WORKERS": "4", "THREADS": "0"}, many),
            **shared,
        ),
        Contestant(name="fastapi", command=uvicorn, ready="/health", variants=(one, many), **shared),
    ]


def environment() -> Path:
    """The peers' virtual environment.

    Raises:
        CourseError: it can't be made.
    """
    do = "The peers come from a package index: let this machine reach one, or leave them out with --only ours."
    return environments.ensure("peers", LOCK, compile=True, do=do)


class Running:
    """A contestant's processes, ended on leaving, whatever they are at.

    Args:
        cpus: the CPUs that it may use, where the system can pin it.

    Raises:
        CourseError: it did not get ready.
    """

    def __init__(
        self, contestant: Contestant, task: Task, variant: Mapping[str, str], cpus: list[int], folder: Path
    ) -> None:
        self.contestant, self.task = contestant, task
        self.port = _free_port()
        own = {key: os.environ[key] for key in _PASSED_ON if key in os.environ}
        environment = {**own, **contestant.environment, **variant, "TASK": task, "PORT": str(self.port)}
        self.output = folder / f"{contestant.name}.log"
        started = time.monotonic()
        with self.output.open("w") as output:
            self.process = subprocess.Popen(
                pinned(cpus) + contestant.command(self.port, variant),
                env=environment,
                cwd=contestant.folder or folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=5, trust_env=False) as http:
                waits.until(
                    lambda: self._ready(http),
                    what=f"{contestant.name} to be ready",
                    timeout=_READY_SECONDS,
                    every=0.002,
                    diagnose=self._said,
                )
        except BaseException:
            self.end()
            raise
        self.start_to_ready_s = time.monotonic() - started

    def _ready(self, http: httpx.Client) -> None:
        if self.process.poll() is not None:
            raise CourseError(f"{self.contestant.name} ended with {self.process.returncode}", why=self._said())
        try:
            status = http.get(self.contestant.ready).status_code
        except httpx.TransportError as error:
            raise waits.NotYet(str(error)) from None
        if status != 200:
            raise waits.NotYet(f"{self.contestant.ready} answered {status}")

    def _said(self) -> str:
        return self.output.read_text(errors="replace")[-1500:]

    @property
    def path(self) -> str:
        return self.contestant.paths[self.task]

    def memory_mb(self) -> dict[str, float | None]:
        """Resident memory of all its processes in MB: added up, and with shared pages counted once (Linux)."""
        infos = [process.memory_full_info() for process in self._family()]
        shared_once = sum(info.pss for info in infos) / 1e6 if infos and hasattr(infos[0], "pss") else None
        return {"rss_mb": sum(info.rss for info in infos) / 1e6, "pss_mb": shared_once}

    def _family(self) -> list[psutil.Process]:
        with contextlib.suppress(psutil.Error):
            parent = psutil.Process(self.process.pid)
            return [parent, *parent.children(recursive=True)]
        return []

    def end(self) -> None:
        """SIGTERM to the group, then SIGKILL to whoever of the family is left."""
        family = self._family()
        try:
            _signal_group(self.process.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(10)
        finally:  # also when the bench itself is told to end meanwhile
            _signal_group(self.process.pid, signal.SIGKILL)
            self.process.wait()
            for process in family:
                with contextlib.suppress(psutil.Error):
                    process.kill()
            psutil.wait_procs(family, timeout=5)

    def __enter__(self) -> Running:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()


def pinned(cpus: list[int]) -> list[str]:
    """The words before a command that hold it to these CPUs; none where the system has no taskset."""
    return ["taskset", "-c", ",".join(map(str, cpus))] if shutil.which("taskset") else []


def _signal_group(leader: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, number)


_PORTS = iter(random.SystemRandom().sample(range(20_000, 30_000), 10_000))


def _free_port() -> int:
    """A port nobody listens on, outside those that the system gives away by itself, and none that was given here before."""
    for port in _PORTS:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise OSError("no port is free")
