"""The installed packages against a lock: other locks, same environment."""

from __future__ import annotations

import sys
from pathlib import Path

import packaging
import pytest
from machines import a_machine

from course_lib.doctor import environment
from course_lib.settings import CHECKOUT

#: As uv writes them: markers, hashes on lines of their own, comments.
LOCK = f"""\
packaging=={packaging.__version__} \\
    --hash=sha256:0000
    # via course-lib
colorama==0.4.6 ; sys_platform == 'no-such-system' \\
    --hash=sha256:1111
older==1 ; python_full_version < '3.11' \\
    --hash=sha256:2222
Newer.Name==2 ; python_full_version >= '3.11' \\
    --hash=sha256:3333
"""


@pytest.fixture
def lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "requirements.txt"
    file.write_text(LOCK)
    monkeypatch.setattr(environment, "_LOCK", file)
    return file


def test_markers_decide_what_the_lock_wants_here(lock: Path) -> None:
    assert list(environment.locked(lock)) == ["packaging", "newer-name"]


def test_the_first_mismatch_is_named(lock: Path) -> None:
    wanted = environment.locked(lock)
    version = packaging.__version__
    assert environment.mismatches(wanted, {"packaging": version, "newer-name": "2"}) == []
    assert environment.mismatches(wanted, {"packaging": "0.1", "newer-name": "2"}) == [
        f"packaging is 0.1, the lock has =={version}"
    ]
    assert environment.mismatches(wanted, {"packaging": version}) == ["newer-name is missing, the lock has ==2"]


def test_another_lock_than_the_installed_is_a_warning_that_can_be_mended(lock: Path) -> None:
    lock.write_text("packaging==0.1 \\\n    --hash=sha256:0\nno-such-package==1 \\\n    --hash=sha256:1\n")
    (finding,) = environment.examine(a_machine())
    assert finding.severity == "warning"
    assert f"packaging is {packaging.__version__}, the lock has ==0.1 (and 1 more)" in finding.message
    own = Path(sys.prefix).resolve() == (CHECKOUT / ".venv").resolve()
    assert ("./bootstrap.sh" in finding.remedy) == own == (finding.fix is environment.install_again)


def test_another_python_than_the_courses_is_named(lock: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    (finding,) = environment.examine(a_machine())
    assert str(tmp_path) in finding.message and "make doctor" in finding.remedy and finding.fix is None


def test_the_fix_makes_the_bootstrap_start_from_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """bootstrap.sh does nothing while its mark is there: here a script that tells whether it was."""
    mark = tmp_path / ".venv" / ".installed-requirements.txt"
    mark.parent.mkdir()
    mark.touch()
    script = tmp_path / "bootstrap.sh"
    script.write_text(f"#!/bin/sh\n[ -e '{mark}' ] && exit 1\ntouch ran\n")
    script.chmod(0o755)
    monkeypatch.setattr(environment, "CHECKOUT", tmp_path)
    environment.install_again()
    assert (tmp_path / "ran").exists()


def test_the_mark_is_the_one_that_the_bootstrap_reads() -> None:
    assert environment._MARK in (CHECKOUT / "bootstrap.sh").read_text()
