"""An engine's double to talk to, and programs to put on the PATH."""

from __future__ import annotations

import socketserver
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from machines import PutOnPath, StartDouble, start_double


@pytest.fixture
def engine_double(monkeypatch: pytest.MonkeyPatch) -> Iterator[StartDouble]:
    servers: list[socketserver.BaseServer] = []
    with tempfile.TemporaryDirectory(prefix="double-") as folder:  # a socket's path must be short

        def start(*, tcp: str = "", silent: bool = False, **info: Any) -> str:
            server, address = start_double(Path(folder), tcp, silent, info)
            servers.append(server)
            monkeypatch.setenv("DOCKER_HOST", address)
            monkeypatch.delenv("DOCKER_CONTEXT", raising=False)
            return address

        yield start
        for server in servers:
            server.shutdown()
            server.server_close()


@pytest.fixture
def put_on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PutOnPath:
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder), prepend=":")

    def put(name: str, script: str) -> None:
        program = folder / name
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)

    return put
