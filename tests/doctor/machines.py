"""Machines to examine, and a server that speaks as much of the Docker Engine's protocol as `docker info` asks for."""

from __future__ import annotations

import json
import socketserver
import threading
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, Protocol

from course_lib.doctor.machine import Machine
from course_lib.doctor.nvidia import Gpus
from course_lib.host.engine import Engine, EngineState

READY = Engine(
    EngineState.READY, "Docker Engine 26.1.5", "26.1.5", "overlay2", "amd64", "/var/lib/docker", 2, 8 * 10**9
)

#: What an engine answers to GET /info, as far as anything here reads it.
INFO: dict[str, Any] = {
    "ID": "double",
    "ServerVersion": "26.1.5",
    "Driver": "overlay2",
    "DriverStatus": [["Backing Filesystem", "extfs"]],
    "Architecture": "x86_64",
    "OSType": "linux",
    "DockerRootDir": "/var/lib/docker",
    "NCPU": 2,
    "MemTotal": 8 * 10**9,
    "SecurityOptions": ["name=seccomp,profile=builtin"],
    "HttpProxy": "",
    "HttpsProxy": "",
    "Runtimes": {"runc": {"path": "runc"}},
    "Swarm": {"LocalNodeState": "inactive"},
}


def a_machine(**changes: Any) -> Machine:
    """A healthy machine without a GPU, with some things changed."""
    return Machine(**{"lab": None, "profile": "cpu", "engine": READY, "info": INFO, "gpus": Gpus()} | changes)


class _Handler(BaseHTTPRequestHandler):
    info: dict[str, Any] = INFO
    silent = False

    def do_GET(self) -> None:
        if self.silent:
            time.sleep(60)
            return
        body = json.dumps(self.info if self.path.endswith("/info") else {"ApiVersion": "1.45"}).encode()
        self.send_response(200)
        self.send_header("API-Version", "1.45")
        self.send_header("OSType", "linux")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_GET

    def address_string(self) -> str:
        return "docker"  # a unix socket's peer has no address

    def log_message(self, format: str, *arguments: object) -> None:
        """Keeps quiet."""


class _UnixServer(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


class _TcpServer(socketserver.ThreadingMixIn, socketserver.TCPServer):
    daemon_threads = True


class StartDouble(Protocol):
    """Starts a double whose `docker info` differs from INFO in the given fields, and points DOCKER_HOST to it."""

    def __call__(self, *, tcp: str = "", silent: bool = False, **info: Any) -> str: ...


class PutOnPath(Protocol):
    """Puts a shell script of that name in front of the PATH."""

    def __call__(self, name: str, script: str) -> None: ...


def start_double(folder: Path, tcp: str, silent: bool, info: dict[str, Any]) -> tuple[socketserver.BaseServer, str]:
    """A double on a socket in a folder, or on a free port of an address; and how DOCKER_HOST spells it."""
    handler = type("Handler", (_Handler,), {"info": INFO | info, "silent": silent})
    if tcp:
        server: socketserver.BaseServer = (by_tcp := _TcpServer((tcp, 0), handler))
        address = f"tcp://{tcp}:{by_tcp.socket.getsockname()[1]}"
    else:
        server = _UnixServer(str(folder / "engine.sock"), handler)
        address = f"unix://{folder}/engine.sock"
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    return server, address
