"""Two images side by side: sizes are the engine's, and a "smaller" image that is not is refused."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from course_lib import images, shell
from course_lib.errors import CourseError
from course_lib.images import buildkit
from course_lib.images.course_image import SERVER
from course_lib.settings import CHECKOUT

pytestmark = pytest.mark.docker


@pytest.fixture
def large_and_small(fresh_state: Path, tmp_path: Path) -> Iterator[tuple[str, str]]:
    name = f"course-test-{os.urandom(4).hex()}"
    (tmp_path / "payload").write_bytes(os.urandom(3_000_000))
    (tmp_path / "word").write_text("x")
    for tag, copies in (("large", "COPY payload /\nCOPY word /\n"), ("small", "COPY word /\n")):
        (tmp_path / "Dockerfile").write_text("FROM scratch\n" + copies)
        buildkit.build(tmp_path, tag=f"{name}:{tag}")
    yield f"{name}:large", f"{name}:small"
    shell.run(["docker", "image", "rm", "--force", f"{name}:large", f"{name}:small"], show=False, check=False)


def test_sizes_and_layers_are_read_from_the_engine(large_and_small: tuple[str, str]) -> None:
    found = images.compare(*large_and_small)
    assert found.before_bytes >= 3_000_000 and 0 < found.ratio < 0.1
    assert "payload" in str(found.rows("before")[0]["instruction"]) and "payload" not in str(found.rows("after"))


def test_an_image_that_is_not_smaller_is_refused(large_and_small: tuple[str, str]) -> None:
    large, small = large_and_small
    with pytest.raises(CourseError, match="is not smaller"):
        images.compare(small, large)


def test_no_tool_leaves_its_cache_where_the_naive_image_copies_everything() -> None:
    """It would be measured as if a learner had put it there."""
    folder = str(SERVER.relative_to(CHECKOUT))
    listed = shell.run(
        ["git", "ls-files", "--others", "--ignored", "--exclude-standard", "--directory", folder],
        show=False,
        cwd=CHECKOUT,
    ).stdout
    assert [line for line in listed.splitlines() if not line.endswith("/__pycache__/")] == []
