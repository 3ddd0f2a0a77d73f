"""What the steps of lab 4.4.2 read back from the engine, from inside the containers, and from the services themselves."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any

from course_lib import shell
from course_lib.errors import CourseError
from course_lib.lab.steps import record
from course_lib.stacks import health
from course_lib.stacks.rag import Answer
from course_lib.stacks.stack import Stack


def require_services(stack: Stack, *services: str) -> None:
    """Each of these services runs, of the image that the merged configuration names for it.

    Raises:
        CourseError: one does not run, or runs another image.
    """
    wanted = stack.project.config()["services"]
    found = {one.service: one for one in stack.states()}
    for service in services:
        one = found.get(service)
        if one is None or one.status != "running":
            raise CourseError(
                f"service {service} is not running", why=one.words() if one else "There is no container of it."
            )
        if one.image != wanted[service]["image"]:
            raise CourseError(
                f"service {service} runs another image than the Compose files name",
                why=f"{one.image} instead of {wanted[service]['image']}",
                do="Start the stack again: `up` replaces containers whose configuration changed.",
            )
        if _inspect("container", one.container)["Image"] != _inspect("image", one.image)["Id"]:
            raise CourseError(
                f"service {service} runs another image than {one.image} is now",
                why="The name was given to another image after the container had started.",
                do="Start the stack again: `up` replaces containers whose image changed.",
            )
        record("stack.service", "docker", one.container, service=service, image=one.image, state=one.words())
    record("stack.services-running", "docker", stack.project.name, services=list(services))


def require_all_healthy(stack: Stack) -> list[health.State]:
    """Every service of the configuration has a container, and each says `healthy`, by a health check of its own.

    Raises:
        CourseError: one has none, or is not healthy.
    """
    found, until = health.settle(stack.project), time.monotonic() + 60
    while any(one.sick and one.status == "running" for one in found) and time.monotonic() < until:
        found = health.settle(stack.project)  # a busy machine may be too slow for two probes in a row
    for service in stack.project.services:
        mine = [one for one in found if one.service == service]
        sick = [one for one in mine if one.health != "healthy" or one.sick]
        if not mine:
            raise CourseError(f"service {service} has no container", do="Start the stack: `stack.up()`.")
        if any(one.health == "none" for one in mine):
            raise CourseError(f"service {service} has no health check", do="Give it one in the Compose file.")
        if sick:
            raise CourseError(f"service {service} is not healthy", why=health.explain(stack.project, sick))
        record("stack.health", "docker", mine[0].container, service=service, health="healthy", probe_said=mine[0].probe)
    record(
        "stack.all-healthy", "docker", stack.project.name, services=len(stack.project.services), containers=len(found)
    )
    return found


def networks(stack: Stack) -> list[dict[str, str]]:
    """The stack's networks as the engine has them: name, whether they have a way out, who is in them."""
    config = stack.project.config()
    rows = []
    for short, what in config["networks"].items():
        found = _inspect("network", what["name"])
        inside = sorted(_service(stack, c["Name"]) for c in (found.get("Containers") or {}).values())
        record("stack.network", "docker", what["name"], internal=found["Internal"], services=inside)
        rows.append(
            {
                "network": short,
                "way out": "no" if found["Internal"] else "yes",
                "services": ", ".join(dict.fromkeys(inside)),
            }
        )
    return rows


def require_reachable(stack: Stack, service: str, port: int, *, from_: str) -> None:
    """A connection from inside one service's container to another one's port is accepted.

    Raises:
        CourseError: it is not.
    """
    tried = _connect(stack, service, port, from_)
    if not tried.opened:
        raise CourseError(
            f"{from_} can't reach {service} on port {port}", why=tried.said, do="Are both on one network?"
        )
    record("stack.reachable", "docker", f"{from_} -> {service}:{port}", connected=True)


def require_unreachable(stack: Stack, service: str, port: int, *, from_: str) -> str:
    """A connection from inside one service's container to another one's port fails, by its name and by its address in each network.
    Returns what was said. That the port is open to others is for `require_reachable` to show, beside it.

    Raises:
        CourseError: the connection was made, or could not be tried.
    """
    addresses = _addresses(stack, service)
    by_name = _connect(stack, service, port, from_)
    by_address = {address: _connect(stack, address, port, from_) for address in addresses}
    for how, tried in (("name", by_name), *(("address", one) for one in by_address.values())):
        if tried.opened:
            raise CourseError(
                f"{from_} reached {service} on port {port} by its {how}",
                do="They must not share a network: compare their `networks` in the Compose file.",
            )
    record(
        "stack.unreachable", "docker", f"{from_} -> {service}:{port}",
        by_name=by_name.said, by_address="; ".join(f"{address}: {one.said}" for address, one in by_address.items()),
    )  # fmt: skip
    return "\n".join([f"by name: {by_name.said}", *(f"by address: {one.said}" for one in by_address.values())])


@dataclass(frozen=True)
class _Tried:
    opened: bool
    said: str


def _connect(stack: Stack, host: str, port: int, from_: str) -> _Tried:
    """Tries a TCP connection with what is in the container: bash opens one by itself, and Python where there is no bash."""
    state = next((one for one in stack.states() if one.service == from_), None)
    if state is None or state.status != "running":
        raise CourseError(f"service {from_} is not running", do="Start the stack: `stack.up()`.")
    programs = (
        (
            "bash",
            "-c",
            f"timeout 3 bash -c 'exec 3<>/dev/tcp/{host}/{port}' 2>&1 && echo OPEN || echo 'no connection within 3 s'",
        ),
        ("python3", "-c", _PYTHON, host, str(port)),
    )
    for program in programs:
        done = stack.execute(from_, *program, check=False, timeout=20)
        # Neither that program nor what it asks with: nothing was tried, which must not pass for a closed door.
        if any(sign in done.stderr + done.stdout for sign in _NOT_TRIED):
            continue
        lines = [line.strip() for line in done.stdout.splitlines() if line.strip()]
        if not lines:
            raise CourseError(f"{from_} could not be asked to connect", why=done.stderr)
        return _Tried(lines[-1] == "OPEN", lines[0])
    raise CourseError(
        f"the image of {from_} has neither bash nor python3 to try a connection with",
        do="Try it from another service of the same network.",
    )


_NOT_TRIED = ("executable file not found", "command not found", "No such file or directory")

_PYTHON = """
import socket, sys
try:
    socket.create_connection((sys.argv[1], int(sys.argv[2])), 3)
    print("OPEN")
except OSError as error:
    print(error)
"""


def _addresses(stack: Stack, service: str) -> list[str]:
    """The addresses of a service's first container, one a network."""
    for state in stack.states():
        if state.service == service:
            attached = _inspect("container", state.container)["NetworkSettings"]["Networks"]
            return [str(one["IPAddress"]) for one in attached.values()]
    raise CourseError(f"service {service} has no container", do="Start the stack: `stack.up()`.")


@dataclass(frozen=True)
class Stock:
    """What a stack's database held at a moment, and by which objects."""

    documents: dict[str, int]
    question: str
    answer: Answer
    container: str
    volume_created: str


def take_stock(stack: Stack, question: str) -> Stock:
    """Reads what is stored, asks a question of it, and notes container and volume, so that a later look can compare.

    Raises:
        CourseError: nothing is stored: there is nothing that could survive.
    """
    documents = stack.rag.documents()
    if not documents:
        raise CourseError("no documents are stored", do="Store some first: `stack.rag.put_files(…)`.")
    return Stock(documents, question, stack.rag.answer(question), _container_id(stack), _volume(stack)["CreatedAt"])


def require_survived(stack: Stack, before: Stock) -> None:
    """The same documents and the same answer, by another container on the same volume.

    Raises:
        CourseError: something is missing, or it is the same container, so that nothing had to survive.
    """
    if _container_id(stack) == before.container:
        raise CourseError(
            "the database still runs in the same container", do="Take the stack down and up again in between."
        )
    documents = stack.rag.documents()
    if documents != before.documents:
        raise CourseError(
            f"{len(before.documents)} documents were stored, and {len(documents)} are there now",
            do="Does the database's folder (/data) lie on a named volume?",
        )
    answer = stack.rag.answer(before.question)
    if answer.sources[:1] != before.answer.sources[:1]:
        raise CourseError(
            "the same question finds another passage now",
            why=f"{before.answer.sources[:1]} before, {answer.sources[:1]} now",
        )
    record(
        "stack.documents-survived", "http", stack.project.name,
        documents=len(documents), passages=sum(documents.values()), question=before.question, answer=answer.text,
        volume=_volume(stack)["Name"],
    )  # fmt: skip


def require_gone(stack: Stack, before: Stock) -> None:
    """Nothing is stored, on a volume that was made anew.

    Raises:
        CourseError: documents are there, or it is still the same volume.
    """
    volume = _volume(stack)
    if volume["CreatedAt"] == before.volume_created:
        raise CourseError(
            "the volume is still the same", do="Take the stack down with its volumes: `stack.down(volumes=True)`."
        )
    if documents := stack.rag.documents():
        raise CourseError(f"{len(documents)} documents are still there", why=", ".join(documents))
    record(
        "stack.documents-gone", "http", stack.project.name, documents=0, volume=volume["Name"], made=volume["CreatedAt"]
    )


def require_answer(stack: Stack, question: str, *, source: str, about: str) -> Answer:
    """Asks through the front door; the answer has to speak of a word, and to rest on a passage of a certain document.

    Args:
        source: how the name of a document begins that the answer has to come from.
        about: a word that any right answer contains.

    Raises:
        CourseError: it does not.
    """
    answer = stack.rag.answer(question)
    if about.lower() not in answer.text.lower():
        raise CourseError(f"the answer does not speak of {about!r}", why=f"{question}\n{answer.text}")
    if not any(passage.source.startswith(source) for passage in answer.sources):
        raise CourseError(
            f"no source of the answer is in {source}",
            why=", ".join(passage.source for passage in answer.sources) or "It names no source.",
            do="Is that document stored? `stack.rag.documents()` lists them.",
        )
    if not answer.grounded:
        raise CourseError("the answer stands in none of its sources", why=answer.text)
    record(
        "rag.answer", "http", stack.url, question=question, answer=answer.text, answered_by=answer.answered_by,
        sources=[passage.source for passage in answer.sources],
    )  # fmt: skip
    return answer


def require_counted(stack: Stack, expression: str, before: float, *, more: int) -> float:
    """Waits until Prometheus has counted what was just done, and returns the new value.

    Args:
        expression: PromQL with one value, a counter's sum.
        before: what it was.
        more: how much it has to have grown at least.

    Raises:
        CourseError: it did not grow so much within some scrapes.
    """
    stack.prometheus.wait_for(f"({expression}) >= {before + more}", timeout=90)
    now = stack.prometheus.value(expression)
    record("prometheus.counted", "prometheus", stack.project.name, query=expression, before=before, now=now)
    return now


def _container_id(stack: Stack, service: str = "chroma") -> str:
    state = next((one for one in stack.states() if one.service == service), None)
    if state is None:
        raise CourseError(f"service {service} has no container", do="Start the stack: `stack.up()`.")
    return str(_inspect("container", state.container)["Id"])


def _volume(stack: Stack, short: str = "documents") -> dict[str, Any]:
    return _inspect("volume", stack.project.config()["volumes"][short]["name"])


def _inspect(kind: str, name: str) -> dict[str, Any]:
    said = shell.run(["docker", kind, "inspect", name], show=False, check=False, timeout=30)
    found = json.loads(said.stdout or "[]")
    if not found:
        raise CourseError(f"{kind} {name} is not there", do="Start the stack: `stack.up()`.")
    return dict(found[0])


def _service(stack: Stack, container: str) -> str:
    """The service of a container, by Compose's way of naming."""
    return container.removeprefix(f"{stack.project.name}-").rpartition("-")[0] or container
