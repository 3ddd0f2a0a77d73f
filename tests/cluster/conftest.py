"""What tests of the cluster room put into the cluster that all share."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from course_lib import shell
from course_lib.cluster import Deployer, KindCluster
from course_lib.settings import settings


@pytest.fixture
def own_work(fresh_state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state and a work folder of the test's own."""
    monkeypatch.setenv("COURSE_WORK_DIR", str(tmp_path / "work"))
    settings.cache_clear()
    return tmp_path


@pytest.fixture(scope="session")
def loaded(shared_cluster: KindCluster, small_image: str) -> Iterator[tuple[str, str]]:
    """Two names of the small image, both on the nodes."""
    names = [f"{settings().object_name('deployer-test')}:{n}" for n in (1, 2)]
    for name in names:
        shell.run(["docker", "image", "tag", small_image, name], show=False)
    try:
        for name in names:
            shared_cluster.load(name)
        yield names[0], names[1]
    finally:
        shell.run(["docker", "image", "rm", *names], show=False, check=False)


@pytest.fixture(scope="module")
def deployer(shared_cluster: KindCluster) -> Iterator[Deployer]:
    """A Deployer with a namespace of its own."""
    found = Deployer(
        f"test-{uuid.uuid4().hex[:6]}", kubeconfig=shared_cluster.kubeconfig, kubectl=shared_cluster.source
    )
    found.apply([{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": found.namespace}}])
    yield found
    found.api.delete("v1", "Namespace", found.namespace)
