"""Clusters for the tests: one for all who only put things into it and take them out again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from course_lib import cluster
from course_lib.cluster import KindCluster
from course_lib.cluster.tools import Source
from course_lib.images import bases
from course_lib.settings import settings


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
def own_work(fresh_state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state and a work folder of the test's own."""
    monkeypatch.setenv("COURSE_WORK_DIR", str(tmp_path / "work"))
    settings.cache_clear()
    return tmp_path
