"""What the checks of lab 4.4.2 look for in a Compose file, and in the stack that came of it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import yaml

from course_lib import images, waits
from course_lib.errors import CourseError
from course_lib.lab.exercise import NotYet
from course_lib.stacks import Project, Rag, Stack, built_variables, course_stack, secret_files
from course_lib.stacks.built_images import STACK

DOCUMENT = (
    "# Lighthouse\n\nThe lighthouse of Skerryvore has 151 steps, and its keeper is called Morag.\n\n"
    "# Harbour\n\nThe harbour opens at six in the morning and closes when the last boat is in.\n"
)
QUESTION, WORD = "How many steps does the lighthouse have?", "151"


def services(file: Path) -> dict[str, Any]:
    """The services that a learner's file itself speaks of.

    Raises:
        NotYet: it has none, or is no YAML.
    """
    if not file.is_file():
        raise NotYet(
            f"there is no {file.name} in the folder", expected=f"your Compose file as {file.name}", look="the name"
        )
    try:
        found = yaml.safe_load(file.read_text())
    except yaml.YAMLError as error:
        raise NotYet(f"{file.name} is no YAML: {error}", expected="a Compose file", look="the indentation") from None
    services = (found or {}).get("services") or {} if isinstance(found or {}, dict) else None
    if not isinstance(services, dict):
        raise NotYet(
            f"{file.name} has no services by name",
            expected="`services:`, and below it a name for each, with a colon",
            look="docker/stack/compose.yaml, how it begins",
        )
    return services


def own(file: Path, short: str) -> Stack:
    """A learner's Compose file as a stack of its own, with the variables that the exercises promise."""
    references = images.stack_variables()
    project = Project(short, (file,))
    variables = {
        **built_variables(references),
        "STACK_FOLDER": str(STACK),
        "SECRETS_FOLDER": str(project.folder / "secrets"),
    }
    return Stack(Project(short, (file,), variables))


@contextlib.contextmanager
def up(stack: Stack, *, services: Sequence[str] = ()) -> Iterator[Stack]:
    """The stack, healthy; gone when the block ends.

    Args:
        services: only these, and what they depend on.

    Raises:
        NotYet: it can't be started, or does not get healthy; with what the services said.
    """
    try:
        try:
            stack.up(timeout=240, services=services)
        except CourseError as error:
            raise NotYet(
                f"{error.what}\n{error.why}", expected="a stack whose services are all healthy", look=error.do
            ) from None
        yield stack
    finally:
        stack.remove()


def merged(stack: Stack) -> dict[str, Any]:
    """A stack's services as Compose sees them, all files laid over one another; looking leaves nothing behind.

    Raises:
        NotYet: Compose can't read the files.
    """
    try:
        stack.project.prepare()
        return dict(stack.project.config()["services"])
    except CourseError as error:
        raise NotYet(f"{error.what}\n{error.why}", expected="files that Compose can read", look=error.do) from None
    finally:
        stack.remove()


def require(fine: bool, seen: str, *, expected: str, look: str) -> None:
    if not fine:
        raise NotYet(seen, expected=expected, look=look)


def require_health_check(name: str, service: Mapping[str, Any]) -> None:
    check = service.get("healthcheck") or {}
    test = check.get("test") or ["NONE"]
    require(
        not check.get("disable") and test[0] != "NONE",
        f"service {name} has no health check",
        expected="one that asks whether it answers",
        look="healthcheck",
    )


def require_probes_that_can_fail(stack: Stack, services: Mapping[str, Any]) -> None:
    """Runs each service's probe in a container in which the service does not run: there it has to fail.

    Raises:
        NotYet: one succeeds, so it does not ask the service.
    """
    stack.project.prepare()
    if "SECRETS_FOLDER" in stack.project.variables:
        secret_files.make(Path(stack.project.variables["SECRETS_FOLDER"]))
    try:
        for name, service in services.items():
            kind, *test = (part.replace("$$", "$") for part in service["healthcheck"]["test"])
            program, *arguments = ["sh", "-c", *test] if kind == "CMD-SHELL" else test
            try:
                stack.project.run(
                    "run", "--rm", "--no-deps", "--entrypoint", program, name, *arguments, show=False, timeout=60
                )
            except CourseError:
                continue
            raise NotYet(
                f"service {name} has no health check that asks it: the probe succeeds where {name} does not run",
                expected="a probe that fails when nobody answers",
                look="healthcheck.test",
            )
    finally:
        stack.remove()


def require_memory_limit(name: str, service: Mapping[str, Any], *, most: int = 0) -> None:
    """A limit, of at most so many bytes if that is asked."""
    limit = int(
        (service.get("deploy") or {}).get("resources", {}).get("limits", {}).get("memory")
        or service.get("mem_limit")
        or 0
    )
    require(limit > 0, f"service {name} has no memory limit", expected="one", look="deploy.resources.limits.memory")
    if most:
        require(limit <= most, f"service {name} may take {limit / 2**20:.0f} MB", expected=f"at most {most / 2**20:.0f} MB", look="deploy.resources.limits.memory")  # fmt: skip


def require_no_ports(name: str, service: Mapping[str, Any]) -> None:
    require(
        not service.get("ports"),
        f"service {name} has a port on the host",
        expected="none: only the services of the stack ask it",
        look="ports",
    )


def require_waits_for(name: str, service: Mapping[str, Any], other: str) -> None:
    condition = (service.get("depends_on") or {}).get(other, {}).get("condition", "")
    require(
        condition == "service_healthy",
        f"{name} does not wait until {other} is healthy",
        expected=f"depends_on with {other} and the condition service_healthy",
        look="depends_on",
    )


def rag_of(stack: Stack) -> Rag:
    """The RAG service of a learner's stack, on its published port.

    Raises:
        NotYet: it publishes none on 127.0.0.1.
    """
    try:
        port = stack.port("rag", 8000)
    except CourseError as error:
        raise NotYet(error.what, expected="port 8000 of rag on 127.0.0.1", look="ports") from None
    return Rag(httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False), prefix="")


def require_answers(stack: Stack, *, store: bool) -> float:
    """Stores a document if asked to, and has a question about it answered; returns the seconds the answer took.

    Raises:
        NotYet: the answer is missing or wrong.
    """
    rag = rag_of(stack)
    try:
        if store:
            rag.put("skerryvore.md", DOCUMENT)
        answer = rag.answer(QUESTION)
    except CourseError as error:
        kept = "" if store else "after `down` and `up`: "
        raise NotYet(
            f"{kept}{error.what}\n{error.why}", expected="an answer", look="what the service's words name"
        ) from None
    if WORD not in answer.text:
        raise NotYet(f"{QUESTION}\n{answer.text}", expected=f"an answer with {WORD} in it", look="the documents")
    return answer.seconds["total"]


def require_survives(stack: Stack) -> None:
    """Takes all down and up again, and asks the same question of what is still stored.

    Raises:
        NotYet: nothing is.
    """
    stack.down()
    try:
        stack.up(timeout=240)
    except CourseError as error:
        raise NotYet(
            f"after `down`: {error.what}\n{error.why}", expected="a stack that starts again", look=error.do
        ) from None
    require_answers(stack, store=False)


def cache_override(folder: Path) -> Stack:
    """The course's stack with a learner's compose.cache.yaml laid over it."""
    return course_stack(
        images.stack_variables(), short="cache", profiles=(), overrides=(folder / "compose.cache.yaml",)
    )


def eventually(probe: Any, *, what: str, timeout: float) -> bool:
    """Whether something comes true in time."""

    def once() -> bool:
        if not probe():
            raise waits.NotYet("not yet")
        return True

    try:
        return waits.until(once, what=what, timeout=timeout, every=0.3)
    except waits.WaitTimeout:
        return False
