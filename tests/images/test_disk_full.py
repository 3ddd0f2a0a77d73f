"""A disk that is full."""

from __future__ import annotations

from pathlib import Path

import pytest

from course_lib import ledger, shell
from course_lib.errors import CourseError
from course_lib.images import buildkit

pytestmark = pytest.mark.docker


def test_a_build_on_a_full_disk_says_so_and_leaves_no_image(
    small_engine: Path, tmp_path: Path, small_image: str
) -> None:
    (tmp_path / "Dockerfile").write_text(f"FROM {small_image}\nRUN head -c 400000000 /dev/urandom > /large\n")
    with pytest.raises(CourseError) as failed:
        buildkit.build(tmp_path, tag="course-test/large:1", network="none")
    assert "the disk is full" in failed.value.what and "cleanup" in failed.value.do
    assert not shell.succeeds(["docker", "image", "inspect", "course-test/large:1"])
    ledger.strike("image", "course-test/large:1")
