"""The process: settings, sockets, uvicorn, and a clean end."""

import os
import socket
import sys
from types import FrameType

import uvicorn

from trace_receiver.app import create_app
from trace_receiver.settings import Settings, StartError


class Server(uvicorn.Server):
    """uvicorn, whose end by SIGTERM is exit code 0 (its own is the signal's)."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """See uvicorn."""
        self.force_exit = self.should_exit
        self.should_exit = True


def serve() -> int:
    """Receive until SIGTERM; returns the exit code, 1 where the receiver could not start."""
    try:
        settings = Settings.read(os.environ)
        listener = _bind(settings.host, settings.port, socket.SOCK_STREAM, "PORT")
        if settings.syslog_port:  # the app opens it on its own loop; here a taken one is a sentence, not a traceback
            _bind(settings.host, settings.syslog_port, socket.SOCK_DGRAM, "SYSLOG_PORT").close()
    except StartError as error:
        print(f"trace-receiver: {error}", file=sys.stderr)
        return 1
    config = uvicorn.Config(
        create_app(settings),
        log_level="warning",
        access_log=False,
        ws="none",
        lifespan="on",
        proxy_headers=False,
        server_header=False,
        limit_concurrency=256,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=2,
    )
    print(f"trace-receiver: OTLP and page on port {settings.port}, syslog on UDP {settings.syslog_port or '(off)'}")
    server = Server(config)
    server.run(sockets=[listener])
    return 0 if server.started else 1


def _bind(host: str, port: int, kind: socket.SocketKind, name: str) -> socket.socket:
    """A bound socket. Raises StartError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        if kind is socket.SOCK_STREAM:
            return socket.create_server((host, port), family=family, backlog=1024)
        bound = socket.socket(family, kind)
        bound.bind((host, port))
        return bound
    except OSError as error:
        reason = error.strerror or str(error)
        raise StartError(
            f"can't listen on {host}:{port} ({reason}): set {name} to a free port, or HOST to an address of this machine."
        ) from None
