"""The process: bind, listen, load the models meanwhile, and leave politely on SIGTERM."""

import asyncio
import gc
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import NoReturn

from inference_server.errors import StartError
from inference_server.models import find_models
from inference_server.settings import Settings, read_settings
from inference_server.traffic import Traffic, TrafficFile, read_traffic

log = logging.getLogger("inference_server")
BACKLOG = 2048
RELOAD_SIGNAL = getattr(signal, "SIGHUP", None)  # none on Windows
IDLE_CONNECTION_SECONDS = 75  # longer than the 60 s of nginx and most load balancers, which must be the first to close


def serve() -> int:
    """Run the server until it is told to stop; returns its exit code."""
    # As process 1 of a container nothing happens on SIGTERM unless somebody says so, also in the first half second.
    signal.signal(signal.SIGTERM, _leave_early)
    if RELOAD_SIGNAL:
        signal.signal(RELOAD_SIGNAL, signal.SIG_IGN)  # it means a reload, and there is nothing to reload yet
    # Huge pages would make the sparse key/value buffers cost all they could ever hold: 126 MB became 233 when it was tried.
    os.environ.setdefault("NUMPY_MADVISE_HUGEPAGE", "0")
    try:
        settings = read_settings()
        split = read_traffic(settings)
        # What can be refused at once is; what lies in a bucket is fetched once the port is open: platforms give up on a
        # container that does not listen.
        if not settings.model_is_remote and not settings.model_wait_seconds:
            find_models(settings.models_folder(), settings.engine)
        listener = _bind(settings.host, settings.port, "PORT")
        grpc_listener = _bind(settings.host, settings.grpc_port, "GRPC_PORT") if settings.grpc_port else None
    except StartError as error:
        return _refuse(error)
    try:
        return _run(settings, split, listener, grpc_listener)
    except KeyboardInterrupt:
        return 130


def _run(settings: Settings, split: Traffic, listener: socket.socket, grpc_listener: socket.socket | None) -> int:
    """With settings and ports in hand: import what is heavy and go."""
    import uvicorn

    from inference_server import logs
    from inference_server.app import create_app
    from inference_server.connections import SlowHeads, allow_many, give_up_on_silent
    from inference_server.engines import standstill
    from inference_server.one_piece import OnePieceProtocol
    from inference_server.registry import Registry
    from inference_server.reload import Reloader, wait_for_models
    from inference_server.serving import Phase, Serving

    logs.set_up(settings.log_level)
    try:
        serving = Serving(settings)
    except StartError as error:
        return _refuse(error)
    problem: list[StartError] = []
    allow_many()
    for each in filter(None, (listener, grpc_listener)):
        give_up_on_silent(each, settings.receive_timeout_seconds)
    slow_heads = SlowHeads(settings.receive_timeout_seconds)

    class Server(uvicorn.Server):
        """uvicorn, with loading at its start and draining at its end."""

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            self.loop = asyncio.get_running_loop()
            await super().startup(sockets)
            log.info("listening", extra={"fields": {"host": settings.host, "port": settings.port}})
            if grpc_listener:
                from inference_server.contracts import oip_grpc

                self.grpc = await oip_grpc.start(serving, grpc_listener)
                log.info("listening for gRPC", extra={"fields": {"host": settings.host, "port": settings.grpc_port}})
            self.reloader: Reloader | None = None
            self.traffic_file: TrafficFile | None = None
            if RELOAD_SIGNAL:
                self.loop.add_signal_handler(RELOAD_SIGNAL, self.reload)
            self.loader = threading.Thread(target=self.load, name="loader", daemon=True)
            self.loader.start()

        async def on_tick(self, counter: int) -> bool:
            standstill.look()
            if counter % 10 == 0:  # once a second
                slow_heads.sweep(self.server_state.connections)
            return await super().on_tick(counter)

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            if grpc_listener:
                from inference_server.contracts import oip_grpc

                await oip_grpc.stop(self.grpc)
            await super().shutdown(sockets)

        def load(self) -> None:
            """On a thread of its own, so that /health answers meanwhile."""
            start = time.perf_counter()
            try:
                registry = wait_for_models(serving)
                try:
                    registry.direct(split, serving.metrics, strict=True)
                except StartError:
                    registry.close()
                    raise
            except StartError as error:
                problem.append(error)
                self.should_exit = True
            except Exception:
                log.exception("bug while loading the models")
                problem.append(StartError("a model could not be loaded because of a bug; the traceback is in the log."))
                self.should_exit = True
            else:
                reloader = Reloader(serving, self.loop, registry.models)
                # What was made until now stays. Garbage collection that walks through all of it stops every answer for 20 ms.
                gc.collect()
                gc.freeze()
                seconds = time.perf_counter() - start
                self.soon(lambda: self.loaded(registry, reloader, seconds))

        def loaded(self, registry: Registry, reloader: Reloader, seconds: float) -> None:
            serving.loaded = registry
            if serving.phase is Phase.LOADING:
                serving.phase = Phase.READY
            self.reloader = reloader
            self.reloader.start()
            if settings.traffic_file:
                self.traffic_file = TrafficFile(
                    settings.traffic_file,
                    changed=lambda new: self.soon(lambda: serving.models.direct(new, serving.metrics)),
                    refused=lambda: serving.metrics.traffic_failures.inc(),
                )
                self.traffic_file.start()
            names = [model.spec.id for model in registry.models]
            log.info("ready", extra={"fields": {"models": names, "load_seconds": round(seconds, 3)}})

        def soon(self, call: Callable[[], None]) -> None:
            """Run something on the event loop's thread, unless that has ended."""
            with suppress(RuntimeError):
                self.loop.call_soon_threadsafe(call)

        def reload(self) -> None:
            if self.reloader:
                self.reloader.ask()

        @property
        def loading(self) -> bool:
            """Whether a thread may be deep inside a library, where nobody can stop it."""
            return self.loader.is_alive() or bool(self.reloader and self.reloader.busy)

        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            """First signal: leave, then drain. Second: end now. (uvicorn's own way would end in the signal's exit code, not in 0.)"""
            if not hasattr(self, "loop"):
                raise SystemExit(0)  # nothing has begun
            if serving.phase in (Phase.LEAVING, Phase.DRAINING):
                self.should_exit = self.force_exit = True
            else:
                stays = serving.phase is Phase.READY and settings.shutdown_delay_seconds > 0
                serving.phase = Phase.LEAVING if stays else Phase.DRAINING
                self.loop.call_soon_threadsafe(lambda: setattr(self, "draining", self.loop.create_task(self.drain())))

        async def drain(self) -> None:
            """Finish what runs, for at most DRAIN_SECONDS; then uvicorn closes its doors.

            Meanwhile the port stays open: /ready says 503 to whoever asks, and new work is sent elsewhere with a sentence. Before
            that comes SHUTDOWN_DELAY_SECONDS, for clients that keep their connection: no load balancer can send those elsewhere.
            """
            if serving.phase is Phase.LEAVING:
                log.info("leaving", extra={"fields": {"seconds": settings.shutdown_delay_seconds}})
                await asyncio.sleep(settings.shutdown_delay_seconds)
                serving.phase = Phase.DRAINING
            if self.reloader:
                self.reloader.stop()
            if self.traffic_file:
                self.traffic_file.stop()
            log.info("draining", extra={"fields": {"in_flight": serving.in_flight}})
            end = time.monotonic() + settings.drain_seconds
            while serving.in_flight and time.monotonic() < end:
                await asyncio.sleep(0.02)
            if serving.in_flight:
                log.warning("requests cut off", extra={"fields": {"in_flight": serving.in_flight}})
            self.should_exit = True

    config = uvicorn.Config(
        create_app(serving),
        log_config=None,
        access_log=False,
        http=OnePieceProtocol,
        lifespan="off",
        ws="none",
        proxy_headers=False,
        server_header=False,
        backlog=BACKLOG,
        timeout_keep_alive=IDLE_CONNECTION_SECONDS,
        timeout_graceful_shutdown=1,
    )
    server = Server(config)
    server.run(sockets=[listener])
    for model in [*(serving.loaded.models if serving.loaded else []), *serving.retiring]:
        model.engine.close()
    if serving.spans:
        serving.spans.close()
    code = 0
    if problem and serving.phase is not Phase.DRAINING:
        code = _refuse(problem[0])
    else:
        log.info("stopped")
    if server.loading:  # a library that is pulled away under a thread inside it would end the process with a crash
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


def _bind(host: str, port: int, name: str) -> socket.socket:
    """The listening socket, taken before anything heavy is loaded. Raises StartError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        reason = error.strerror or str(error)
        raise StartError(
            f"can't listen on {host}:{port} ({reason}): set {name} to a free port, or HOST to an address of this machine."
        ) from None


def _refuse(error: StartError) -> int:
    print(f"inference-server: {error}", file=sys.stderr)
    return 1


def _leave_early(sig: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(0)
