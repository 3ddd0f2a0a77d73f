"""The server's container under fault, on the real engine: out of memory, killed, frozen, paused. Docker restarts it, and it answers again."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

import httpx
import pytest

from course_lib import images, shell, waits
from course_lib.images.containers import ASK_EVERY_SECOND, Container
from course_lib.images.engine_client import client
from course_lib.images.server import InferenceServer, samples

pytestmark = pytest.mark.docker

MEMORY_MB = 256


@pytest.fixture
def name() -> str:
    return f"faults-{os.urandom(4).hex()}"


@contextmanager
def serving(image: str, name: str, **env: str) -> Iterator[Container]:
    """The course's server as one would run it: a limit of memory, and a restart when it fails."""
    options = [f"--memory={MEMORY_MB}m", f"--memory-swap={MEMORY_MB}m", "--restart=on-failure", *ASK_EVERY_SECOND]
    with images.running(image, name, env=env, options=options) as container:
        container.wait_healthy()
        answers(container)
        yield container


def answers(container: Container) -> None:
    """Digits come back right, wherever its port is published now: a restart may move it."""
    (binding,) = container.inspect()["NetworkSettings"]["Ports"]["8080/tcp"]
    container.port = int(binding["HostPort"])
    InferenceServer(container.url).require_right(samples(5))


def restarts(container: Container) -> int:
    return int(container.inspect()["RestartCount"])


def wait_restarted(container: Container) -> None:
    def restarted() -> None:
        if not restarts(container):
            raise waits.NotYet(str(container.status()))

    waits.until(restarted, what="Docker to restart it", timeout=60, diagnose=container.logs)
    container.wait_healthy(again=True)
    answers(container)


def test_out_of_memory(fresh_state: Path, inference_image: str, name: str) -> None:
    """Bodies of a permitted size, sent all but to their end on so many connections that they can't all be held."""
    body = bytes(1_000_000)
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1000001\r\n\r\n"
    seen: dict[str, str | None] = {}

    def killed() -> None:
        if seen != {"oom": None, "die": "137"}:
            raise waits.NotYet(str(seen))

    with serving(inference_image, name) as container, ExitStack() as held:
        # heard as they happen: the engine keeps the last 256 events of all containers, which is seconds of health checks
        happened = client().events(filters={"container": container.name, "event": ["oom", "die"]}, decode=True)
        held.callback(happened.close)

        def listen() -> None:
            for event in happened:
                seen[event["Action"]] = event["Actor"]["Attributes"].get("exitCode")

        threading.Thread(target=listen, daemon=True).start()
        with suppress(OSError):  # from some moment on, nobody is there to read them
            for _ in range(2 * MEMORY_MB):
                connection = held.enter_context(closing(socket.create_connection(("127.0.0.1", container.port), 60)))
                connection.sendall(head + body)
        wait_restarted(container)
        waits.until(killed, what="the engine to tell of its end", timeout=30)


def test_killed(fresh_state: Path, inference_image: str, small_image: str, name: str) -> None:
    """By SIGKILL from the host, as the kernel's own killer does it; `docker kill` would count as a wish that it ends."""
    with serving(inference_image, name) as container:
        process = container.inspect()["State"]["Pid"]
        kill = f"import os; os.kill({process}, 9)"
        shell.run(
            [
                "docker",
                "run",
                "--rm",
                f"--name={name}-killer",
                "--pid=host",
                "--user=0",
                "--entrypoint=python3",
                small_image,
                "-c",
                kill,
            ]
        )
        wait_restarted(container)


def test_frozen(fresh_state: Path, inference_image: str, name: str) -> None:
    """The HEALTHCHECK notices; whoever asked meanwhile is answered when it goes on, and no engine is taken for stuck."""
    with serving(inference_image, name, STALL_SECONDS="3") as container, ThreadPoolExecutor(1) as pool:
        container.signal("STOP")
        try:
            asked = pool.submit(InferenceServer(container.url, timeout=180).require_right, samples(1))
            container.wait_unhealthy(120)
        finally:
            container.signal("CONT")
        assert InferenceServer(container.url).get("/health").status_code == 200
        assert asked.result().right == 1
        container.wait_healthy(again=True)
        assert restarts(container) == 0


def test_paused(fresh_state: Path, inference_image: str, name: str) -> None:
    """As `docker pause` does it. Without a health check: one that is about to begin can hang with the pause and take the engine along."""
    how = {"env": {"STALL_SECONDS": "3"}, "options": ["--no-healthcheck"]}
    with images.running(inference_image, name, **how) as container, ThreadPoolExecutor(1) as pool:
        server = InferenceServer(container.url, timeout=60)
        waits.until(lambda: ready(server), what="the server to be ready", timeout=60, diagnose=container.logs)
        shell.run(["docker", "pause", container.name])
        asked = pool.submit(server.require_right, samples(1))
        time.sleep(4)
        shell.run(["docker", "unpause", container.name])
        assert InferenceServer(container.url).get("/health").status_code == 200
        assert asked.result().right == 1


def ready(server: InferenceServer) -> None:
    """Raises NotYet while it is not."""
    try:
        status = server.get("/ready").status_code
    except httpx.TransportError as error:
        raise waits.NotYet(str(error)) from None
    if status != 200:
        raise waits.NotYet(str(status))
