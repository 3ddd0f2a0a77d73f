"""Stacks for the tests of this folder: small ones of a test's own, and the course's, started once for all who only look at it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from course_lib import images, shell, stacks
from course_lib.settings import settings
from course_lib.stacks import Project, Stack

#: What the shared stack has stored.
DOCUMENT = ("volumes.md", "# Volumes\n\nA named volume is storage that outlives containers.\n")


def compose(*, top: dict[str, Any] | None = None, **services: dict[str, Any]) -> str:
    """A Compose file of services that do nothing, which is what most tests need of one, but for what is said of each.

    Args:
        top: what stands beside `services`: networks, volumes, secrets.
    """
    check = {"test": ["CMD", "true"], "interval": "200ms"}
    idle = {
        "image": "${IMAGE}",
        "init": True,
        "command": ["sleep", "600"],
        "healthcheck": check,
        "stop_grace_period": "0s",
    }
    found = {"services": {name: {**idle, **more} for name, more in services.items()}, **(top or {})}
    return str(yaml.safe_dump(found))


@pytest.fixture
def own_work(fresh_state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state and a work folder of the test's own."""
    monkeypatch.setenv("COURSE_WORK_DIR", str(tmp_path / "work"))
    settings.cache_clear()
    return tmp_path


@pytest.fixture
def small_stack(own_work: Path, small_image: str) -> Iterator[Callable[..., Stack]]:
    """Makes a stack of a Compose file's text, with ${IMAGE} for an image that is here; it is gone after the test."""
    made: list[Stack] = []

    def make(text: str, short: str = "small", **variables: str) -> Stack:
        file = own_work / f"{short}.yaml"
        file.write_text(text)
        stack = Stack(Project(short, (file,), {"IMAGE": small_image, **variables}))
        made.append(stack)
        return stack

    yield make
    for stack in made:
        stack.remove()


@pytest.fixture(scope="session")
def stack_images(inference_image: str) -> dict[str, str]:
    """What `course_stack` wants to know."""
    return images.stack_variables()


@pytest.fixture(scope="package")
def course_stack(stack_images: dict[str, str]) -> Iterator[Stack]:
    """The course's stack with one document in it. Who changes it puts it back."""
    with stacks.running(stacks.course_stack(stack_images, short="shared")) as stack:
        stack.rag.put(*DOCUMENT)
        stack.prometheus.wait_for('up{job="rag"} == 1 and on () up{job="chroma"} == 1')  # the first round of scrapes
        yield stack


def objects(stack: Stack, *kinds: str) -> set[str]:
    """`kind name` of everything the engine has of a stack's project."""
    mine = f"--filter=label=com.docker.compose.project={stack.project.name}"
    listers = {
        "container": ["ps", "--all", "--format={{.Names}}"],
        "network": ["network", "ls", "--format={{.Name}}"],
        "volume": ["volume", "ls", "--format={{.Name}}"],
    }
    return {
        f"{kind} {name}"
        for kind, lister in listers.items()
        if not kinds or kind in kinds
        for name in shell.run(["docker", *lister, mine], show=False).output.split()
    }
