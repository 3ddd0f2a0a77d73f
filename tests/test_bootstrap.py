"""bootstrap.sh makes an environment from whatever a machine has, and does nothing the second time."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from course_lib.settings import CHECKOUT

#: The programs that a POSIX system has anyway; no uv and no Python among them.
TOOLS = ("sh", "uname", "mkdir", "dirname", "cmp", "cp", "rm", "id", "env", "cat", "ln", "chmod")

PROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
[project]
name = "course-lib"
version = "1"
[project.scripts]
course = "course_lib:main"
[tool.hatch.build.targets.wheel]
packages = ["course_lib"]
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project as ours, with a lock of five small packages out of ours."""
    folder = tmp_path / "project"
    (folder / "course_lib").mkdir(parents=True)
    (folder / "course_lib" / "__init__.py").write_text("def main() -> None:\n    print('installed')\n")
    shutil.copy(CHECKOUT / "bootstrap.sh", folder)
    (folder / "pyproject.toml").write_text(PROJECT)
    wanted = ("hatchling", "editables", "packaging", "pathspec", "pluggy", "trove-classifiers", "tomlkit")
    lines, keeping = [], False
    for line in (CHECKOUT / "requirements.txt").read_text().splitlines():
        if line and not line[0].isspace() and not line.startswith("#"):
            keeping = line.split("==")[0] in wanted
        if keeping:
            lines.append(line)
    (folder / "requirements.txt").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A PATH with the usual tools only."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for tool in TOOLS:
        found = shutil.which(tool)
        assert found, tool
        (folder / tool).symlink_to(found)
    return folder


def bootstrap(project: Path, path: Path, **more: str) -> subprocess.CompletedProcess[str]:
    keep = {
        k: v
        for k, v in os.environ.items()
        if k.endswith(("_CERT", "_CERT_FILE", "_CERT_DIR", "_BUNDLE", "_PROXY", "INDEX_URL")) or k == "HOME"
    }
    return subprocess.run(
        ["sh", "./bootstrap.sh"],
        cwd=project,
        env={**keep, "PATH": str(path), **more},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )


def python_without(path: Path, *modules: str) -> None:
    """A python3 on the PATH that lacks modules, as Debian's does without python3-pip or python3-venv."""
    refuse = " ".join(f'if [ "$2" = {m} ]; then echo "No module named {m}" >&2; exit 1; fi;' for m in modules)
    base = Path(sys.base_prefix) / "bin" / "python3"
    (path / "python3").write_text(f'#!/bin/sh\nif [ "$1" = -m ]; then {refuse} :; fi\nexec {base} "$@"\n')
    (path / "python3").chmod(0o755)


def require_installed(project: Path, done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode == 0, done.stdout + done.stderr
    assert subprocess.run([project / ".venv/bin/course"], capture_output=True, text=True).stdout == "installed\n"


@pytest.mark.parametrize("missing", [(), ("pip",)], ids=["by pip", "by a venv"])
def test_uv_is_fetched_where_there_is_none(project: Path, path: Path, missing: tuple[str, ...]) -> None:
    python_without(path, *missing)
    require_installed(project, bootstrap(project, path))
    assert (project / ".cache" / ("uv-venv" if missing else "uv")).is_dir()


def test_the_second_time_nothing_happens_and_a_new_lock_is_noticed(project: Path, path: Path) -> None:
    python_without(path)
    require_installed(project, bootstrap(project, path))
    again = bootstrap(project, path)
    assert again.returncode == 0 and again.stdout + again.stderr == "", "a comparison of two files, not an installation"
    lock = project / "requirements.txt"
    lock.write_text(lock.read_text() + "# another line\n")
    assert "making .venv" in bootstrap(project, path).stderr


def test_a_machine_without_python_and_without_a_package_manager_gets_a_sentence(project: Path, path: Path) -> None:
    done = bootstrap(project, path)
    assert done.returncode == 1 and "no way to get uv here" in done.stderr and not (project / ".venv").exists()


def test_a_lock_that_can_not_be_installed_says_so_and_is_tried_again(project: Path, path: Path) -> None:
    python_without(path)
    lock = project / "requirements.txt"
    good = lock.read_text()
    lock.write_text(good.replace("sha256:", "sha256:0000", 1))
    done = bootstrap(project, path)
    assert done.returncode == 1 and "could not be installed" in done.stderr
    lock.write_text(good)
    require_installed(project, bootstrap(project, path))


def test_a_clone_that_was_renamed_gets_scripts_of_its_own(project: Path, path: Path) -> None:
    python_without(path)
    require_installed(project, bootstrap(project, path))
    moved = project.rename(project.with_name("renamed"))
    require_installed(moved, bootstrap(moved, path))
    assert str(moved) in (moved / ".venv/bin/course").read_text().splitlines()[0]


def test_an_ordinary_user_without_a_terminal_is_not_made_to_install_packages(project: Path, path: Path) -> None:
    called = project / "called"
    for name in ("apt-get", "sudo"):
        (path / name).write_text(f'#!/bin/sh\necho "$@" >>"{called}"\nexit 1\n')
        (path / name).chmod(0o755)
    (path / "id").unlink()
    (path / "id").write_text("#!/bin/sh\necho 1000\n")
    (path / "id").chmod(0o755)
    done = bootstrap(project, path)
    assert done.returncode == 1 and "YES=1" in done.stderr and not called.exists()
    assert bootstrap(project, path, YES="1").returncode == 1 and "apt-get update" in called.read_text()
