"""A registry of one's own: what is pushed has a digest, and a digest outlives the tag that moves on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from course_lib import shell
from course_lib.errors import CourseError
from course_lib.images import bases, buildkit, platforms, registry

pytestmark = pytest.mark.docker


@pytest.fixture
def two(fresh_state: Path, tmp_path: Path) -> Iterator[list[str]]:
    """Two tiny images that differ in one file."""
    tags = [f"course-test-{os.urandom(4).hex()}:{number}" for number in (1, 2)]
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY word /\n")
    for tag in tags:
        (tmp_path / "word").write_text(tag)
        buildkit.build(tmp_path, tag=tag)
    yield tags
    shell.run(["docker", "image", "rm", "--force", *tags], show=False, check=False)


@pytest.fixture
def foreign(fresh_state: Path, tmp_path: Path) -> Iterator[str]:
    """An image of a platform that this engine does not run."""
    other = "linux/arm64" if platforms.of_engine() == "linux/amd64" else "linux/amd64"
    tag, tar = f"course-test-{os.urandom(4).hex()}:1", tmp_path / "root.tar"
    shell.run(["tar", "--create", "--file", str(tar), "--files-from=/dev/null"], show=False)
    shell.run(["docker", "import", f"--platform={other}", str(tar), tag], show=False)
    yield tag
    shell.run(["docker", "image", "rm", "--force", tag], show=False, check=False)


def test_a_digest_still_gives_the_same_image_after_the_tag_moved(two: list[str]) -> None:
    first, second = two
    with registry.running(f"test-{os.urandom(4).hex()}") as here:
        pinned = here.push(first, "thing:1")
        assert here.digest("thing:1") == pinned.partition("@")[2]
        moved = here.push(second, "thing:1")
        assert here.digest("thing:1") == moved.partition("@")[2] != pinned.partition("@")[2]
        shell.run(
            ["docker", "image", "rm", "--force", f"{here.address}/thing:1", pinned, moved, first, second], show=False
        )
        assert not bases.present(pinned)
        shell.run(["docker", "pull", "--quiet", pinned], show=False)
        try:
            made = shell.run(["docker", "create", pinned, "none"], show=False).output
            word = shell.run(["sh", "-c", f"docker cp {made}:/word - | tar -xO"], show=False).output
            shell.run(["docker", "rm", made], show=False)
            assert word == first
        finally:
            shell.run(["docker", "image", "rm", pinned], show=False, check=False)
        with pytest.raises(CourseError, match="has no thing:2"):
            here.digest("thing:2")


def test_an_image_of_another_platform_is_refused_before_it_is_pushed(foreign: str) -> None:
    own = platforms.of_engine()
    with registry.running(f"test-{os.urandom(4).hex()}") as here:
        with pytest.raises(CourseError, match=f"would not start on {own}") as refused:
            here.push(foreign, "foreign:1", platform=own)
        assert f"--platform={own}" in refused.value.do
        with pytest.raises(CourseError, match="has no foreign:1"):
            here.digest("foreign:1")
