"""Shared by all tests: a state of their own, and the real engine where a test is marked `docker`."""

from __future__ import annotations

import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from course_lib import cluster, shell, waits
from course_lib import settings as settings_module
from course_lib.cluster import KindCluster
from course_lib.cluster.tools import Source
from course_lib.images import bases, course_image, engine_client
from course_lib.images.engine_client import client


@pytest.fixture
def fresh_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A ledger and an evidence store that no other test sees."""
    state = tmp_path / "state"
    monkeypatch.setenv("COURSE_STATE_DIR", str(state))
    monkeypatch.setenv("COURSE_RUN_ID", f"test-{uuid.uuid4().hex[:8]}")
    settings_module.settings.cache_clear()
    yield state
    settings_module.settings.cache_clear()


@pytest.fixture(scope="session")
def small_image() -> str:
    """The slim Python base: what a test starts when it only needs some container."""
    return bases.ensure().runtime


@pytest.fixture(scope="session")
def inference_image() -> str:
    """The course's image, built once for all tests."""
    return course_image.ensure_inference_image()


@pytest.fixture(scope="session")
def image_source() -> Source:
    """Where node images come from on this machine."""
    return bases.source()[0]


@pytest.fixture(scope="session")
def shared_cluster(image_source: Source) -> Iterator[KindCluster]:
    """A control plane and a worker. Who makes something in it does so in a namespace of its own, and takes it away."""
    with cluster.running(KindCluster("tests", source=image_source, workers=1)) as found:
        yield found


@pytest.fixture
def container_names() -> Iterator[list[str]]:
    """Names that are removed after the test, whatever it did."""
    names: list[str] = []
    yield names
    for name in names:
        shell.run(["docker", "rm", "--force", "--volumes", name], show=False, check=False)


@pytest.fixture
def small_engine(
    fresh_state: Path, tmp_path: Path, small_image: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """A second engine on a loop-mounted disk of 300 MB; gives where that is mounted.

    It is in a network namespace of its own: with `--bridge=none` it would take the other's docker0 away.
    """
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
            timeout=120,
            diagnose=lambda: (tmp_path / "dockerd.log").read_text()[-800:],
        )
        shell.pipe(["docker", "save", small_image], ["docker", "--host", address, "load"])
        monkeypatch.setenv("DOCKER_HOST", address)
        engine_client.client.cache_clear()
        yield root
    finally:
        daemon.terminate()
        try:
            daemon.wait(60)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()
        subprocess.run(["umount", "--lazy", str(root)], check=False)
        root.rmdir()
        engine_client.client.cache_clear()


def containers_labelled(label: str) -> list[str]:
    """Names of all containers that carry a label."""
    return [str(c.name) for c in client().containers.list(all=True, ignore_removed=True, filters={"label": label})]
