"""The machine itself, really changed where that can be done: a full disk, a taken port, a clone from Windows."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from machines import a_machine

from course_lib.doctor import clone, disk, memory, ports
from course_lib.host.engine import Engine, EngineState

GB = 10**9


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of one megabyte."""
    where = tmp_path / "disk"
    where.mkdir()
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", where]).returncode != 0:
        pytest.skip("no file system can be mounted here")
    yield where
    subprocess.run(["umount", where], check=True)


def test_a_full_disk_is_an_error_that_names_the_data_root(small_disk: Path) -> None:
    full = Engine(EngineState.READY, "", "26.1.5", data_root=str(small_disk))
    first, *rest = disk.examine(a_machine(engine=full))
    assert first.severity == "error" and f"0.0 GB free at {small_disk}" in first.message and "cleanup" in first.remedy
    assert len(rest) == 1 and str(small_disk) not in rest[0].message  # the checkout is on another disk


def test_space_has_two_limits(small_disk: Path) -> None:
    megabyte = 10**6
    assert disk.judge(small_disk, megabyte // 2, megabyte).severity == "ok"
    assert disk.judge(small_disk, megabyte // 2, 2 * megabyte).severity == "warning"
    assert disk.judge(small_disk, 2 * megabyte, 3 * megabyte).severity == "error"
    (small_disk / "image").write_bytes(b"0" * (700 * 1024))
    assert disk.judge(small_disk, megabyte // 2, megabyte).severity == "error"


def test_a_gpus_images_want_more_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert disk.LIMITS["gpu"][0] > disk.LIMITS["cpu"][1]
    free = shutil.disk_usage(tmp_path).free
    monkeypatch.setattr(disk, "LIMITS", {"cpu": (0, 0), "gpu": (free * 2, free * 3)})
    here = Engine(EngineState.READY, "", "26.1.5", data_root=str(tmp_path))
    assert disk.examine(a_machine(engine=here))[0].severity == "ok"
    assert disk.examine(a_machine(engine=here, profile="gpu"))[0].severity == "error"


def test_a_data_root_in_a_virtual_machine_is_said_to_be_there(tmp_path: Path) -> None:
    desktop = Engine(EngineState.READY, "", "28.3.0", data_root=str(tmp_path / "inside"))
    first, second = disk.examine(a_machine(engine=desktop))
    assert first.severity == "note" and "virtual machine" in first.message and second.severity in ("ok", "warning")


@pytest.mark.parametrize(
    ("total", "engines", "severity", "words"),
    [
        (16 * GB, 16 * GB, "ok", "16.0 GB in this machine"),
        (16 * GB, int(3.9 * GB), "ok", "3.9 GB for the engine"),
        (16 * GB, 3 * GB, "warning", "3.0 GB for the engine"),
        (16 * GB, 1 * GB, "error", "1.0 GB for the engine"),
        (1 * GB, 0, "error", "the labs need"),
        (3 * GB, 0, "warning", "comfortable"),
    ],
)
def test_memory_is_the_engines_where_that_is_less(total: int, engines: int, severity: str, words: str) -> None:
    finding = memory.judge(total, engines, unified=False)
    assert finding.severity == severity and words in finding.message
    if severity != "ok" and engines:
        assert "Docker Desktop" in finding.remedy
    assert bool(finding.remedy) == (severity != "ok")


def test_a_taken_port_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        assert not ports.can_bind(port) and ports.can_bind(0)
        monkeypatch.setattr(ports, "_JUPYTER", port)
        first, second = ports.examine(a_machine())
        assert first.severity == "ok" and second.severity == "note" and str(port) in second.message
    assert ports.can_bind(port)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a network namespace")
def test_a_loopback_that_is_missing_is_an_error() -> None:
    """In a network namespace of its own, whose loopback nobody has switched on."""
    code = (
        "from course_lib.doctor import ports; from machines import a_machine\n"
        "print([f.severity for f in ports.examine(a_machine())])"
    )
    done = subprocess.run(
        ["unshare", "--net", sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parent)}, capture_output=True, text=True,
    )  # fmt: skip
    if "Operation not permitted" in done.stderr:
        pytest.skip("no network namespace can be made here")
    assert done.stdout.strip() == "['error']", done.stderr


def test_a_clone_made_with_windows_line_ends_is_an_error(tmp_path: Path) -> None:
    origin, windows = tmp_path / "origin", tmp_path / "windows"
    (origin / "docker").mkdir(parents=True)
    (origin / "bootstrap.sh").write_text("#!/bin/sh\nset -eu\n")
    (origin / "docker" / "Dockerfile").write_text("FROM scratch\n")
    (origin / "README.md").write_text("a\n")
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@example.org"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "one"]):
        subprocess.run([*git, *command], cwd=origin, check=True)
    assert [f.severity for f in clone.judge(origin, "6.8.0")] == ["ok"]
    subprocess.run([*git, "clone", "-q", "-c", "core.autocrlf=true", origin, windows], check=True)
    assert b"\r\n" in (windows / "bootstrap.sh").read_bytes()
    (finding,) = clone.judge(windows, "6.8.0")
    assert finding.severity == "error" and "bootstrap.sh (and 1 more) has Windows line ends" in finding.message
    # and its remedy mends it
    remedy = "git config core.autocrlf input && git rm -rq --cached . && git reset -q --hard"
    assert all(
        part in finding.remedy for part in ("core.autocrlf input", "git rm -rq --cached .", "git reset -q --hard")
    )
    subprocess.run(remedy, shell=True, cwd=windows, check=True)
    assert [f.severity for f in clone.judge(windows, "6.8.0")] == ["ok"]


def test_a_clone_on_a_windows_drive_is_slow() -> None:
    drive = Path("/mnt/c/Users/me/course")
    assert [f.severity for f in clone.judge(drive, "5.15.167.4-microsoft-standard-WSL2")] == ["warning"]
    assert [f.severity for f in clone.judge(drive, "6.8.0-45-generic")] == ["ok"]
