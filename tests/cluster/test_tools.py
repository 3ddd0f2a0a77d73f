"""Where kind and kubectl come from."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from course_lib import shell
from course_lib.cluster import fallback_node, tools
from course_lib.errors import CourseError
from course_lib.host import releases


@pytest.fixture
def on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], Path]]:
    """Puts a program on PATH that says a version."""
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")

    def put(name: str, says: str) -> Path:
        file = tmp_path / name
        file.write_text(f"#!/bin/sh\necho '{says}'\n")
        file.chmod(0o755)
        return file

    tools.kind.cache_clear()
    yield put
    tools.kind.cache_clear()


@pytest.mark.parametrize(
    ("says", "version"),
    [("kind v0.33.0 go1.25.1 linux/arm64", (0, 33)), ("kind version 0.27.0", (0, 27)), ("what?", (0, 0))],
)
def test_a_kind_says_its_version(on_path: Callable[[str, str], Path], says: str, version: tuple[int, int]) -> None:
    assert tools.kind_version(on_path("kind", says)) == version


def test_the_machines_own_kind_is_taken(on_path: Callable[[str, str], Path]) -> None:
    own = on_path("kind", "kind v0.33.0 go1.25.1 linux/arm64")
    assert tools.kind("registry") == own


def test_an_old_kind_is_passed_over(on_path: Callable[[str, str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    on_path("kind", "kind v0.11.1 go1.16 linux/amd64")
    newer = on_path("newer", "kind v0.33.0 go1.25.1 linux/amd64")
    monkeypatch.setattr(releases, "program", lambda release: newer)
    assert tools.kind("registry") == newer


@pytest.mark.parametrize(("says", "known"), [("kind v0.33.0 go1.25", True), ("kind v0.32.1 go1.25", False)])
def test_a_node_image_belongs_to_its_kind(on_path: Callable[[str, str], Path], says: str, known: bool) -> None:
    """An image is built for a release of kind, and named by digest: its tag may move to a build for another one."""
    found = tools.node_of(on_path("kind", says))
    assert bool(found) == known and (not known or re.fullmatch(r"kindest/node:v[\d.]+@sha256:[0-9a-f]{64}", found))


def test_where_none_can_be_had_each_source_says_why(
    on_path: Callable[[str, str], Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    on_path("kind", "kind v0.11.1 go1.16 linux/amd64")
    monkeypatch.setenv("PATH", str(tmp_path))  # no apt
    monkeypatch.setattr(tools, "_PINNED", _pinned_nowhere(tmp_path))
    monkeypatch.setattr("course_lib.host.unpacked.CACHE", tmp_path / "packages")
    with pytest.raises(CourseError, match="kind is not on this machine") as failed:
        tools.kind("registry")
    for word in ("it is 0.11", "no pinned release", "no apt"):
        assert word in failed.value.why


def _pinned_nowhere(folder: Path) -> Path:
    file = folder / "tools.toml"
    file.write_text('[kind]\nversion = "1.0"\nurl = "https://example.org/{version}"\nsha256.plan9-mips = "00"\n')
    return file


@pytest.mark.docker
def test_the_fallback_node_gets_the_kind_that_can_start_it(on_path: Callable[[str, str], Path]) -> None:
    """A newer one on PATH would not: it no longer writes the configuration that so old a Kubernetes reads."""
    newer = on_path("kind", "kind v0.33.0 go1.25.1 linux/amd64")
    found = tools.kind("debian", exactly=fallback_node.KIND)
    assert found != newer and tools.kind_version(found) == fallback_node.KIND


@pytest.mark.docker
def test_kubectl_is_to_be_had_without_a_release() -> None:
    assert shell.run([str(tools.kubectl("debian")), "kustomize", "--help"], show=False).output
