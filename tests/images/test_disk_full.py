"""A disk that is full: a small loop-mounted data root under a second engine."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from course_lib import ledger, shell, waits
from course_lib.errors import CourseError
from course_lib.images import buildkit, engine_client

pytestmark = pytest.mark.docker


@pytest.fixture
def small_engine(
    fresh_state: Path, tmp_path: Path, small_image: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """An engine whose disk has 300 MB, in a network namespace of its own: with `--bridge=none` it would take the other's docker0 away."""
    dockerd = shutil.which("dockerd", path="/usr/bin:/usr/sbin:/usr/local/bin")
    if os.geteuid() != 0 or dockerd is None:
        pytest.skip("a second engine on a loop device needs root")
    disk, root, address = tmp_path / "disk", Path("/run/course-test-small"), "unix:///run/course-test-small.sock"
    root.mkdir(exist_ok=True)
    with disk.open("wb") as file:
        file.truncate(300_000_000)
    shell.run(["mkfs.ext4", "-q", str(disk)], show=False)
    if subprocess.run(["mount", "-o", "loop", str(disk), str(root)], capture_output=True).returncode != 0:
        pytest.skip("no loop device to mount here")
    log = (tmp_path / "dockerd.log").open("w")
    flags = [
        f"--data-root={root}/data",
        f"--exec-root={root}/exec",
        f"--host={address}",
        f"--pidfile={tmp_path}/pid",
        "--bridge=none",
        "--iptables=false",
    ]
    daemon = subprocess.Popen(
        ["unshare", "--net", dockerd, *flags], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
    )
    try:

        def answers() -> None:
            if not shell.succeeds(["docker", "--host", address, "version"]):
                raise waits.NotYet("no answer")

        waits.until(
            answers,
            what="the second engine",
            timeout=40,
            diagnose=lambda: (tmp_path / "dockerd.log").read_text()[-800:],
        )
        shell.pipe(["docker", "save", small_image], ["docker", "--host", address, "load"])
        monkeypatch.setenv("DOCKER_HOST", address)
        engine_client.client.cache_clear()
        yield
    finally:
        daemon.terminate()
        daemon.wait(30)
        subprocess.run(["umount", "--lazy", str(root)], check=False)
        root.rmdir()
        engine_client.client.cache_clear()


def test_a_build_on_a_full_disk_says_so_and_leaves_no_image(
    small_engine: None, tmp_path: Path, small_image: str
) -> None:
    (tmp_path / "Dockerfile").write_text(f"FROM {small_image}\nRUN head -c 400000000 /dev/urandom > /large\n")
    with pytest.raises(CourseError) as failed:
        buildkit.build(tmp_path, tag="course-test/large:1", network="none")
    assert "the disk is full" in failed.value.what and "cleanup" in failed.value.do
    assert not shell.succeeds(["docker", "image", "inspect", "course-test/large:1"])
    ledger.strike("image", "course-test/large:1")
