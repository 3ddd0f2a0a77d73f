"""Builds: what came from the cache, and failures told in a sentence."""

from __future__ import annotations

import io
import os
import struct
import tarfile
from pathlib import Path

import pytest

from course_lib import images, ledger, shell
from course_lib.errors import CourseError
from course_lib.images import buildkit, inspection, platforms
from course_lib.images.engine_client import client

pytestmark = pytest.mark.docker


@pytest.fixture
def tag(fresh_state: Path) -> str:
    return f"course-test-{os.urandom(4).hex()}:1"


@pytest.fixture(autouse=True)
def _no_test_images_stay(tag: str):  # type: ignore[no-untyped-def]
    yield
    shell.run(["docker", "image", "rm", "--force", tag], show=False, check=False)


def dockerfile(folder: Path, *lines: str) -> Path:
    (folder / "Dockerfile").write_text("\n".join(lines) + "\n")
    return folder


def test_a_second_build_comes_from_the_cache(tmp_path: Path, tag: str, small_image: str) -> None:
    token = os.urandom(4).hex()
    dockerfile(tmp_path, f"FROM {small_image}", f"RUN echo {token} > /token", "COPY code /code")
    (tmp_path / "code").write_text("1")
    assert not buildkit.build(tmp_path, tag=tag).step("RUN echo").cached
    assert all(step.cached for step in buildkit.build(tmp_path, tag=tag).steps if step.name.startswith("[2"))
    (tmp_path / "code").write_text("2")
    again = buildkit.build(tmp_path, tag=tag)
    assert again.step("RUN echo").cached and not again.step("COPY code").cached


def test_the_row_comes_before_the_image_and_labels_say_whose(tmp_path: Path, tag: str, small_image: str) -> None:
    seen: list[bool] = []
    context = dockerfile(tmp_path, f"FROM {small_image}", "RUN true")
    token = buildkit.watcher.set(lambda steps: seen.append(any(row.name == tag for row in ledger.rows())))
    try:
        buildkit.build(context, tag=tag)
    finally:
        buildkit.watcher.reset(token)
    assert seen and all(seen)
    found = client().images.get(tag).labels
    assert (
        found["org.course-lab.image.lifetime"] == "run"
        and found["org.course-lab.image.session"] == ledger.Session.current().id
    )


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["FROM course-test/no-such-base:1"], "a base image could not be had"),
        (["FRON scratch"], "the Dockerfile can't be read"),
        (["ARG BASE_IMAGE", "FROM ${BASE_IMAGE}"], "a FROM has no image"),
        (["FROM {base}", "COPY not-there /"], "COPY names a file that is not in the build context"),
        (["FROM {base}", "RUN echo some words; exit 3"], "an instruction of the Dockerfile failed"),
    ],
)
def test_failures_are_told_in_a_sentence(
    tmp_path: Path, tag: str, small_image: str, lines: list[str], words: str
) -> None:
    dockerfile(tmp_path, *(line.format(base=small_image) if "{base}" in line else line for line in lines))
    with pytest.raises(CourseError) as failed:
        buildkit.build(tmp_path, tag=tag)
    assert words in failed.value.what and failed.value.do
    if "exit 3" in lines[-1]:
        assert "some words" in failed.value.why
    assert not client().images.list(name=tag.partition(":")[0])


def test_a_build_without_a_network_says_what_could_not_be_reached(tmp_path: Path, tag: str, small_image: str) -> None:
    dockerfile(
        tmp_path,
        f"FROM {small_image}",
        "RUN python3 -c \"import socket; socket.create_connection(('192.0.2.1', 80), 3)\"",
    )
    with pytest.raises(CourseError) as failed:
        buildkit.build(tmp_path, tag=tag, network="none")
    assert "Network is unreachable" in failed.value.why


@pytest.mark.parametrize("wrong", ["inference-server", "inference-server:latest", "127.0.0.1:5001/inference-server"])
def test_a_tag_without_a_version_is_refused(tmp_path: Path, wrong: str) -> None:
    with pytest.raises(CourseError, match="no version in its tag"):
        buildkit.build(tmp_path, tag=wrong)


def test_a_missing_context_is_refused(tmp_path: Path, tag: str) -> None:
    with pytest.raises(CourseError, match="no folder"):
        buildkit.build(tmp_path / "nowhere", tag=tag)


def test_a_layer_forgets_nothing_and_files_know_who_put_them_there(tmp_path: Path, tag: str, small_image: str) -> None:
    dockerfile(
        tmp_path,
        f"FROM {small_image}",
        "RUN echo secret > /token",
        "RUN rm /token && mkdir /kept && echo x > /kept/file",
    )
    buildkit.build(tmp_path, tag=tag)
    found = inspection.files(tag)
    assert "/token" not in found and "mkdir /kept" in found["/kept/file"].instruction
    assert any(files.get("/token") == b"secret\n" for _, files in inspection.layer_files(tag))
    sizes = [layer for layer in images.layers(tag) if "mkdir /kept" in layer.instruction]
    assert len(sizes) == 1 and sizes[0].size > 0


def test_building_is_evidence(tmp_path: Path, tag: str, small_image: str) -> None:
    from course_lib.lab import steps

    dockerfile(tmp_path, f"FROM {small_image}")
    found: list = []  # type: ignore[type-arg]
    token = steps._current.set(found)
    try:
        buildkit.build(tmp_path, tag=tag)
    finally:
        steps._current.reset(token)
    (built,) = [e for e in found if e.fact == "image.built"]
    assert built.read["id"] == buildkit.image_id(tag)[:19]


OTHER = "linux/arm64" if platforms.of_engine() == "linux/amd64" else "linux/amd64"


def test_an_image_for_another_platform_is_built_and_refused_where_it_would_not_start(tmp_path: Path, tag: str) -> None:
    dockerfile(tmp_path, "FROM scratch", "COPY word /")
    (tmp_path / "word").write_text("hello")
    buildkit.build(tmp_path, tag=tag, platform=OTHER)
    assert inspection.platform(tag) == OTHER
    with pytest.raises(CourseError, match=f"is built for {OTHER} and would not start"):
        platforms.require(tag, platforms.of_engine())
    machine = "dgx-spark" if OTHER == "linux/arm64" else "ml.g5.xlarge"
    platforms.require(tag, machine)


def test_a_program_of_another_platform_that_can_not_run_is_told(tmp_path: Path, tag: str) -> None:
    """A RUN on a base of the other platform, whose shell is no more than a program's head: nothing runs it, emulated or not."""
    emulated = OTHER in shell.run(["docker", "buildx", "inspect"], show=False).stdout
    what = "an instruction of the Dockerfile failed" if emulated else "can't run programs of that platform"
    base = f"course-test-foreign-{os.urandom(4).hex()}:1"
    with tarfile.open(tmp_path / "root.tar", "w") as tar:
        header = tarfile.TarInfo("bin/sh")
        program = _elf(OTHER)
        header.size, header.mode = len(program), 0o755
        tar.addfile(header, io.BytesIO(program))
    shell.run(["docker", "import", f"--platform={OTHER}", str(tmp_path / "root.tar"), base], show=False)
    try:
        dockerfile(tmp_path, f"FROM {base}", "RUN true")
        with pytest.raises(CourseError, match=what):
            buildkit.build(tmp_path, tag=tag, platform=OTHER)
    finally:
        shell.run(["docker", "image", "rm", "--force", base], show=False, check=False)


def _elf(platform: str) -> bytes:
    """The head of an ELF program for a platform: enough for a kernel to see that it is not for this machine."""
    machine = {"linux/amd64": 62, "linux/arm64": 183}[platform]
    return struct.pack(
        "<4s5B7xHHIQQQIHHHHHH", b"\x7fELF", 2, 1, 1, 0, 0, 2, machine, 1, 0, 64, 0, 0, 64, 56, 0, 0, 0, 0
    )


def test_the_server_is_not_built_for_a_platform_that_the_bases_are_not_of(fresh_state: Path) -> None:
    if images.ensure_bases().source == "registry":
        pytest.skip("bases from a registry have both platforms")
    with pytest.raises(CourseError, match=f"not for {OTHER}") as refused:
        images.build_for(OTHER)
    assert "IMAGES=registry" in refused.value.do
