"""The process: bind, listen, and leave politely on SIGTERM."""

import logging
import signal
import socket
from types import FrameType

import uvicorn

from rag_service import logs
from rag_service.app import create_app
from rag_service.errors import StartError
from rag_service.service import Rag
from rag_service.settings import Settings

log = logging.getLogger("rag_service")
BACKLOG = 2048
DRAIN_SECONDS = 5  # for what runs; `docker stop` waits 10
IDLE_CONNECTION_SECONDS = 75  # longer than the 60 s of nginx and most load balancers, which must be the first to close


class _Server(uvicorn.Server):
    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """First signal: finish what runs. Second: leave now. (uvicorn's own way would end in the signal's exit code.)"""
        self.force_exit = self.should_exit
        self.should_exit = True


def serve(settings: Settings) -> int:
    """Run the service until it is told to stop; return its exit code. Raises StartError where the port can't be had."""
    # As process 1 of a container nothing happens on SIGTERM unless somebody says so, also in the first half second.
    signal.signal(signal.SIGTERM, _leave_early)
    listener = _bind(settings.host, settings.port)
    logs.set_up(settings.log_level)
    config = uvicorn.Config(
        create_app(Rag(settings)),
        log_config=None,
        access_log=False,
        http="httptools",
        lifespan="on",
        ws="none",
        proxy_headers=False,
        server_header=False,
        backlog=BACKLOG,
        timeout_keep_alive=IDLE_CONNECTION_SECONDS,
        timeout_graceful_shutdown=DRAIN_SECONDS,
    )
    log.info("listening", extra={"fields": {"host": settings.host, "port": settings.port}})
    _Server(config).run(sockets=[listener])
    log.info("stopped")
    return 0


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise StartError(
            f"can't listen on {host}:{port} ({error.strerror or error}): set PORT to a free port, or HOST to an address of this machine."
        ) from None


def _leave_early(sig: int, frame: FrameType | None) -> None:
    raise SystemExit(0)
