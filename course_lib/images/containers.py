"""Containers of an image: started with a name and a row, waited for, asked, frozen, and removed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from docker.errors import APIError, NotFound

from course_lib import ledger, reaper, shell, waits
from course_lib.errors import CourseError
from course_lib.images.engine_client import client
from course_lib.lab.steps import record
from course_lib.settings import settings

#: The image's own health check on a faster clock, for those who watch.
ASK_EVERY_SECOND = (
    "--health-interval=1s",
    "--health-timeout=5s",
    "--health-retries=2",
    "--health-start-interval=500ms",
)


@dataclass
class Container:
    """A container that this session started."""

    name: str
    image: str
    port: int | None
    """The port of 127.0.0.1 that its service is published on."""

    @property
    def url(self) -> str:
        if self.port is None:
            raise CourseError(f"container {self.name} publishes no port", do="Start it with its port given.")
        return f"http://127.0.0.1:{self.port}"

    def inspect(self) -> dict[str, Any]:
        """What the engine says of it now.

        Raises:
            CourseError: it is gone.
        """
        try:
            return dict(client().api.inspect_container(self.name))
        except NotFound:
            raise CourseError(f"container {self.name} is gone", do="Run the cell that starts it again.") from None

    def logs(self, lines: int = 12) -> str:
        """Its last log lines."""
        try:
            return client().api.logs(self.name, tail=lines).decode(errors="replace").strip()
        except APIError:  # gone, or about to be
            return "(the container is gone)"

    def status(self) -> tuple[str, str]:
        """(running, exited, …; healthy, unhealthy, starting or none)."""
        state = self.inspect()["State"]
        return state["Status"], (state.get("Health") or {}).get("Status", "none")

    def _diagnose(self) -> str:
        try:
            state = self.inspect()["State"]
        except CourseError as gone:
            return str(gone)
        parts = [
            f"State: {state['Status']}, exit code {state['ExitCode']}"
            + (", out of memory" if state.get("OOMKilled") else "")
        ]
        return "\n".join([*parts, f"Last health probe: {self.last_probe()}", "Its last log lines:", self.logs()])

    def wait_healthy(self, timeout: float = 60, *, again: bool = False) -> None:
        """Waits until the image's HEALTHCHECK says healthy, and records it.

        Args:
            again: it is unhealthy now and expected to recover, so that alone is no reason to stop waiting.

        Raises:
            CourseError: it exited, turned unhealthy, has no health check, or took too long; with state and log lines.
        """
        self._wait_health("healthy", wrong=None if again else "unhealthy", timeout=timeout)
        record("container.healthy", "docker", self.name, image=self.image, health="healthy")

    def wait_unhealthy(self, timeout: float = 60) -> None:
        """Waits until the HEALTHCHECK notices that something is wrong, and records what the probe said.

        Raises:
            CourseError: it kept saying healthy, or the container ended.
        """
        self._wait_health("unhealthy", wrong=None, timeout=timeout)
        record(
            "container.unhealthy",
            "docker",
            self.name,
            image=self.image,
            health="unhealthy",
            probe_said=self.last_probe(),
        )

    def last_probe(self) -> str:
        """What the last run of its health check said."""
        log = (self.inspect()["State"].get("Health") or {}).get("Log") or []
        return f"status {log[-1]['ExitCode']}, {str(log[-1]['Output']).strip()[:200]}" if log else "nothing yet"

    def _wait_health(self, wanted: str, *, wrong: str | None, timeout: float) -> None:
        def probe() -> None:
            status, health = self.status()
            if health == wanted and status == "running":
                return
            if health == "none":
                raise CourseError(f"image {self.image} has no HEALTHCHECK", do="Give its Dockerfile one.")
            if status in ("exited", "dead"):
                raise CourseError(
                    f"container {self.name} ended before it was {wanted}", why=self._diagnose(), do="Its log says why."
                )
            if health == wrong:
                raise CourseError(
                    f"container {self.name} is {health}",
                    why=self._diagnose(),
                    do="The probe's words and the log say why.",
                )
            raise waits.NotYet(f"{status}, {health}")

        waits.until(
            probe, what=f"container {self.name} to be {wanted}", timeout=timeout, diagnose=self._diagnose,
            do=f"Look closer with `docker logs {self.name}`.",
        )  # fmt: skip

    def signal(self, name: str) -> None:
        """Sends its main process a signal from outside, as the kernel or an operator would."""
        shell.run(["docker", "kill", f"--signal={name}", self.name])

    def execute(self, *argv: str, user: str | None = None, check: bool = True) -> str:
        """Runs a command inside it."""
        as_user = [f"--user={user}"] if user else []
        return shell.run(["docker", "exec", *as_user, self.name, *argv], show=False, check=check, timeout=60).output

    def remove(self) -> None:
        """Stops and removes it, with its anonymous volumes."""
        reaper.dispose("container", self.name)


def start(
    image: str,
    name: str,
    *,
    port: int | None = 8080,
    env: Mapping[str, str] | None = None,
    options: Sequence[str] = (),
    arguments: Sequence[str] = (),
) -> Container:
    """Starts a container in the background; one of the same name from an earlier try is replaced.

    Args:
        name: short name; the checkout's number is put before it.
        port: the port its service listens on, published on a free port of 127.0.0.1; None publishes nothing.
        options: further options of `docker run`.

    Raises:
        CourseError: the image is not there, the name is somebody else's, the engine refused to start it, or it ended
            before its port was published (then it is removed).
    """
    full = settings().object_name(name)
    _make_room(full)
    ledger.write_down("container", full)
    command = ["docker", "run", "--detach", f"--name={full}"]
    # The engine chooses a free port: one that was free a moment ago may not be any more.
    command += [f"--publish=127.0.0.1::{port}"] if port is not None else []
    command += [f"--env={key}={value}" for key, value in (env or {}).items()]
    command += options
    shell.announce(shell.readable([*command, image, *arguments]))
    try:
        shell.run([*command, *ledger.label_arguments(), image, *arguments], show=False, timeout=120)
    except shell.CommandError as error:
        reaper.dispose("container", full)
        raise _explain(error, image) from None
    started = Container(full, image, None)
    if port is not None:
        try:
            started.port = _published(started, port)
        except CourseError:  # its last words stand in the error
            started.remove()
            raise
    return started


def _published(container: Container, port: int) -> int:
    found = container.inspect()
    bindings = (found["NetworkSettings"]["Ports"] or {}).get(f"{port}/tcp")
    if not bindings and found["State"]["Status"] in ("removing", "dead"):
        raise CourseError(f"container {container.name} is gone", do="Run the cell that starts it again.")
    if not bindings:
        raise CourseError(f"container {container.name} has no published port", why=container._diagnose(), do="Did it end? Its log says why.")  # fmt: skip
    return int(bindings[0]["HostPort"])


@contextmanager
def running(image: str, name: str, **how: Any) -> Iterator[Container]:
    """A container that is gone when the block ends, however it ends (see `start` for the arguments)."""
    container = start(image, name, **how)
    try:
        yield container
    finally:
        container.remove()


def _make_room(name: str) -> None:
    try:
        labels = client().api.inspect_container(name)["Config"]["Labels"] or {}
    except NotFound:
        return
    if f"{ledger.LABEL}.checkout" not in labels:
        raise CourseError(
            f"a container called {name} is already here, and the course did not make it",
            do=f"Rename or remove it: `docker rm -f {name}`.",
        )
    owner = labels.get(f"{ledger.LABEL}.session", "")
    mine = ledger.Session.current()
    if owner and owner != mine.id and ledger.Session.parse(owner).alive:
        raise CourseError(
            f"container {name} belongs to another notebook of this checkout that is running",
            do="Shut that notebook's kernel down (in JupyterLab: the second tab on the left), and run the cell again.",
        )
    reaper.dispose("container", name)


def _explain(error: shell.CommandError, image: str) -> CourseError:
    said = error.stderr
    if "could not select device driver" in said:
        return NoGpuDriver(
            "this engine has no driver that could give a container a GPU",
            why=said.strip(),
            do="On a GPU host install the NVIDIA Container Toolkit.",
        )
    if "port is already allocated" in said or "address already in use" in said:
        return CourseError(
            "the port is taken by another program",
            why=said.strip(),
            do="Run the cell again: a free port is chosen each time.",
        )
    if "Unable to find image" in said or "pull access denied" in said or "No such image" in said:
        return CourseError(
            f"the engine has no image {image}", do="Build it first, or check the name with `docker image ls`."
        )
    if "no space left on device" in said:
        return CourseError(
            "the disk is full", why=said.strip(), do="Free some: `course cleanup --all`, or `docker system df`."
        )
    return CourseError(
        f"a container of {image} could not be started", why=said.strip(), do="The engine's words above say why."
    )


class NoGpuDriver(CourseError):
    """The engine refused `--gpus`: no NVIDIA container toolkit here."""


def require_runs(container: Container, image: str) -> None:
    """Reads back that a container runs and that it runs this very image (tags can move; ids can't).

    Raises:
        CourseError: it is gone, not running, or of another image.
    """
    found = container.inspect()
    wanted = str(client().images.get(image).id)
    if found["State"]["Status"] != "running":
        raise CourseError(f"container {container.name} is {found['State']['Status']}", why=container.logs())
    if found["Image"] != wanted:
        raise CourseError(
            f"container {container.name} runs another image than {image}", why=f"{found['Image']} instead of {wanted}"
        )
    record(
        "container.runs-image", "docker", container.name, image=image, id=wanted[:19], user=found["Config"]["User"],
        address=f"127.0.0.1:{container.port}",
    )  # fmt: skip
