"""One cluster for all tests of this folder that need one, with the course's image on its nodes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from course_lib import cluster, shell
from course_lib.images import bases

# The fallback node's volumes are folders that the container runtime makes, for root alone; kind's own are open to everybody.
OPEN_VOLUMES = """
set -e
cd /etc/systemd/system
printf '[Path]\\nPathChanged=/tmp/hostpath_pv\\n' > volumes.path
printf '[Unit]\\nStartLimitIntervalSec=0\\n[Service]\\nType=oneshot\\nExecStart=/bin/sh -c "chmod 1777 /tmp/hostpath_pv/*"\\n' > volumes.service
mkdir -p /tmp/hostpath_pv
systemctl daemon-reload
systemctl start volumes.path
"""


@pytest.fixture(scope="session")
def kind_cluster(inference_image: str) -> Iterator[cluster.KindCluster]:
    with cluster.running(cluster.KindCluster("manifests", source=bases.source()[0], workers=1)) as made:
        if made.node.fallback:
            for node in made.containers:
                shell.run(["docker", "exec", node, "sh", "-c", OPEN_VOLUMES], show=False, timeout=60)
        made.load(inference_image)
        yield made
