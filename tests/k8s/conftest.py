"""The cluster that all tests share, with the course's image on its nodes."""

from __future__ import annotations

import pytest

from course_lib import shell
from course_lib.cluster import KindCluster

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
def kind_cluster(shared_cluster: KindCluster, inference_image: str) -> KindCluster:
    if shared_cluster.node.fallback:
        for node in shared_cluster.containers:
            shell.run(["docker", "exec", node, "sh", "-c", OPEN_VOLUMES], show=False, timeout=60)
    shared_cluster.load(inference_image)
    return shared_cluster
