"""Programs from releases: what is pinned is what is run."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from course_lib.cluster import tools
from course_lib.errors import CourseError
from course_lib.host import releases

PROGRAM = b"#!/bin/sh\necho kind v0.33.0 go1.25 linux/any\n"
THIS = "-".join(releases.this_platform())


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def publisher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A server with one release, and a cache of the test's own; gives its address."""
    monkeypatch.setattr(releases, "CACHE", tmp_path / "checkout" / "cache")
    monkeypatch.setattr(releases, "CHECKOUT", tmp_path / "checkout")
    folder = tmp_path / "published" / "v1.2.3"
    folder.mkdir(parents=True)
    (folder / "tool").write_bytes(PROGRAM)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder.parent)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v{{version}}/tool"
    server.shutdown()
    server.server_close()


def release(url: str, *, content: bytes = PROGRAM, version: str = "1.2.3") -> releases.Release:
    return releases.Release("tool", version, url, {THIS: hashlib.sha256(content).hexdigest()})


def test_a_release_is_fetched_once_and_can_be_run(publisher: str) -> None:
    program = releases.program(release(publisher))
    assert program.read_bytes() == PROGRAM and program.stat().st_mode & 0o111
    assert releases.program(release("http://127.0.0.1:1/{version}")) == program, "the second time from the cache"


def refused(wanted: releases.Release, what: str) -> CourseError:
    with pytest.raises(CourseError, match=what) as failed:
        releases.program(wanted)
    assert "PATH" in failed.value.do
    assert not [file for file in releases.CACHE.rglob("*") if file.is_file()], "nothing half fetched stays"
    return failed.value


def test_another_file_than_the_pinned_one_is_not_run(publisher: str) -> None:
    error = refused(release(publisher, content=b"what was pinned"), "is not tool 1.2.3")
    assert hashlib.sha256(PROGRAM).hexdigest() in error.why


def test_a_release_that_is_not_there(publisher: str) -> None:
    assert "404" in refused(release(publisher, version="9.9.9"), "could not be fetched").why


def test_a_publisher_that_does_not_answer(publisher: str) -> None:
    refused(release("http://127.0.0.1:1/{version}/{os}/{arch}"), "could not be fetched")


def test_a_machine_that_nothing_is_pinned_for(publisher: str) -> None:
    refused(releases.Release("tool", "1.2.3", publisher, {"plan9-mips": "0" * 64}), "no pinned release of tool")


@pytest.mark.parametrize("name", ["kind", "kubectl"])
def test_what_is_pinned_is_pinned_for_a_spark_and_for_laptops(name: str) -> None:
    found = releases.Release.read(tools.KIND / "tools.toml", name)
    assert {"linux-arm64", "linux-amd64", "darwin-arm64"} <= set(found.sha256)
    assert all(len(digest) == 64 and int(digest, 16) for digest in found.sha256.values())
    assert found.url.format(version=found.version, os="linux", arch="arm64").startswith("https://")
