"""Shared by all tests: a state of their own, and the real engine where a test is marked `docker`."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from course_lib import settings as settings_module
from course_lib import shell
from course_lib.images import bases, course_image
from course_lib.images.engine_client import client


@pytest.fixture
def fresh_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A ledger and an evidence store that no other test sees."""
    state = tmp_path / "state"
    monkeypatch.setenv("COURSE_STATE_DIR", str(state))
    monkeypatch.setenv("COURSE_RUN_ID", f"test-{uuid.uuid4().hex[:8]}")
    settings_module.settings.cache_clear()
    yield state
    settings_module.settings.cache_clear()


@pytest.fixture(scope="session")
def small_image() -> str:
    """The slim Python base: what a test starts when it only needs some container."""
    return bases.ensure().runtime


@pytest.fixture(scope="session")
def inference_image() -> str:
    """The course's image, built once for all tests."""
    return course_image.ensure_inference_image()


@pytest.fixture
def container_names() -> Iterator[list[str]]:
    """Names that are removed after the test, whatever it did."""
    names: list[str] = []
    yield names
    for name in names:
        shell.run(["docker", "rm", "--force", "--volumes", name], show=False, check=False)


def containers_labelled(label: str) -> list[str]:
    """Names of all containers that carry a label."""
    return [str(c.name) for c in client().containers.list(all=True, filters={"label": label})]
