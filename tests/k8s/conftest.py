"""One cluster for all tests of this folder that need one, with the course's image on its nodes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from course_lib import cluster
from course_lib.images import bases


@pytest.fixture(scope="session")
def kind_cluster(inference_image: str) -> Iterator[cluster.KindCluster]:
    with cluster.running(cluster.KindCluster("manifests", source=bases.source()[0], workers=1)) as made:
        made.load(inference_image)
        yield made
