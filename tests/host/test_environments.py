"""Environments of their own: made from a hashed lock, kept while it stays the same, never taken half made or unhashed."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from course_lib.errors import CourseError
from course_lib.host import environments
from course_lib.settings import CHECKOUT


@pytest.fixture
def lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A lock with one small package of the course's own."""
    monkeypatch.setattr(environments, "CACHE", tmp_path / "cache")
    entry = re.search(r"^iniconfig==.*?(?=^[a-z])", (CHECKOUT / "requirements.txt").read_text(), flags=re.M | re.S)
    assert entry
    (tmp_path / "requirements.txt").write_text(entry[0])
    return tmp_path / "requirements.txt"


def imports(folder: Path) -> bool:
    return subprocess.run([folder / "bin" / "python", "-c", "import iniconfig"], capture_output=True).returncode == 0


def test_it_is_kept_while_the_lock_stays_the_same(lock: Path) -> None:
    first = environments.ensure("test", lock)
    assert imports(first)
    (first / "kept").touch()
    assert environments.ensure("test", lock) == first and (first / "kept").exists()
    lock.write_text(lock.read_text() + "# changed\n")
    assert environments.ensure("test", lock) != first


def test_one_that_was_half_made_is_made_again(lock: Path) -> None:
    folder = environments.ensure("test", lock)
    (folder / ".complete").unlink()
    (folder / "bin" / "python").unlink()
    assert environments.ensure("test", lock) == folder and imports(folder)


def test_another_package_than_the_locked_one_is_refused(lock: Path) -> None:
    lock.write_text(re.sub(r"sha256:[0-9a-f]{64}", "sha256:" + "0" * 64, lock.read_text()))
    for _ in range(2):  # a failure leaves nothing that would pass for an environment
        with pytest.raises(CourseError, match="uv pip sync") as refused:
            environments.ensure("test", lock, do="Do this.")
        assert "ash" in refused.value.why and refused.value.do == "Do this."
