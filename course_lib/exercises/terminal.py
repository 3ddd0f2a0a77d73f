"""An exercise that is done in a terminal: what is asked, and what the engine says of the container."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from course_lib import ledger, waits
from course_lib.exercises.ticket_router import PORT, TicketRouter
from course_lib.images import bases, buildkit
from course_lib.images.containers import Container
from course_lib.images.engine_client import client
from course_lib.lab import display
from course_lib.lab.exercise import NotAttempted, NotYet
from course_lib.settings import CHECKOUT, settings

MEMORY = 256 * 1024 * 1024


@dataclass(frozen=True)
class TerminalTask:
    """The names that the check looks for."""

    container: str
    image: str
    base_image: str
    folder: Path
    """Where commands are typed: the checkout."""


def names() -> TerminalTask:
    return TerminalTask(
        settings().object_name("terminal"),
        f"{settings().object_name('router')}:terminal",
        bases.ensure().runtime,
        CHECKOUT,
    )


def show_task() -> TerminalTask:
    """Shows what to make; its rows are in the ledger from now on, so that cleanup finds what a learner leaves."""
    task = names()
    ledger.write_down("image", task.image)
    ledger.write_down("container", task.container)
    display.table(
        [
            {"what": "container's name", "exactly": task.container},
            {"what": "image's name", "exactly": task.image},
            {"what": "BASE_IMAGE", "exactly": task.base_image},
            {
                "what": "Dockerfile",
                "exactly": "work/4.4.1/dead-model/Dockerfile, or another of yours with a HEALTHCHECK",
            },
            {"what": "build context", "exactly": "labs/starters/4.4.1/service"},
            {"what": "published", "exactly": f"port {PORT}, on 127.0.0.1 only"},
            {"what": "memory", "exactly": "at most 256 MB"},
            {"what": "restart policy", "exactly": "on-failure"},
        ],
        caption="In a terminal, in the checkout's folder",
    )
    return task


def require_container() -> dict[str, object]:
    """Reads the container that a learner started from the engine.

    Raises:
        NotAttempted: there is none of that name.
        NotYet: it is not as asked.
    """
    task = names()
    # Docker's name filter is a pattern, and the engine puts a slash before every name.
    if not client().containers.list(all=True, filters={"name": f"^/{task.container}$"}):
        raise NotAttempted
    found = Container(task.container, task.image, None).inspect()
    state, host = found["State"], found["HostConfig"]
    if state["Status"] != "running":
        raise _not(f"the container is {state['Status']}", "a container that runs", "`docker ps --all`, `docker logs`")
    # The id, since a tag can move: what runs has to be what the image's name means now.
    wanted = buildkit.image_id(task.image)
    if found["Image"] != wanted:
        there = "" if wanted else ", and the engine has none of that name"
        raise _not(f"the container runs {found['Config']['Image']} ({found['Image'][:19]}…): that is not {task.image} as it is now{there}", "a container of the image that you built under that name", "--tag of `docker build`, and the last word of `docker run`; after another build, start it again")  # fmt: skip
    published = (found["NetworkSettings"]["Ports"] or {}).get(f"{PORT}/tcp") or []
    if not published:
        raise _not(f"port {PORT} is not published", f"port {PORT} on 127.0.0.1", "the option --publish")
    others = {entry["HostIp"] for entry in published} - {"127.0.0.1", "::1"}
    if others:
        raise _not(f"port {PORT} is published on {', '.join(sorted(others))}", "on 127.0.0.1 only: nobody else on your network asks your container", "what stands before the port in --publish")  # fmt: skip
    if not 0 < host["Memory"] <= MEMORY:
        said = f"{host['Memory'] / 2**20:.0f} MB" if host["Memory"] else "no memory limit"
        raise _not(f"the container has {said}", "a limit of at most 256 MB", "`docker run --help`, options on memory")
    if host["RestartPolicy"]["Name"] != "on-failure":
        raise _not(f"its restart policy is {host['RestartPolicy']['Name']!r}", "on-failure", "the option --restart")
    container = Container(task.container, found["Config"]["Image"], int(published[0]["HostPort"]))
    health = _settled_health(container)
    if health != "healthy":
        raise _not(f"its health is {health}", "healthy", "does the image have a HEALTHCHECK? `docker inspect` has the words of its last probe")  # fmt: skip
    right = TicketRouter(container, 0.0).require_right()
    return {"container": task.container, "answers at": container.url, "memory": f"{host['Memory'] / 2**20:.0f} MB", "right": right}  # fmt: skip


def _settled_health(container: Container) -> str:
    """Its health once it is no longer `starting`, or after a minute: whoever types `docker run` checks a moment later."""

    def settled() -> str:
        if (health := container.status()[1]) == "starting":
            raise waits.NotYet("its health is starting")
        return health

    try:
        return waits.until(settled, what="the first health probes", timeout=60)
    except waits.WaitTimeout:
        return "starting"


def _not(seen: str, expected: str, look: str) -> NotYet:
    return NotYet(seen, expected=expected, look=look)
