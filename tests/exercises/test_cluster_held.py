"""The check of hold-p95 on a real cluster: an autoscaler that reads well and does nothing is refused by the answers."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from course_lib.cluster import KindCluster, serving
from course_lib.exercises import cluster_hold, cluster_scenes
from course_lib.lab.exercise import NotYet
from course_lib.settings import CHECKOUT

pytestmark = [pytest.mark.docker, pytest.mark.cluster, pytest.mark.nightly, pytest.mark.timeout(400)]


def test_an_autoscaler_that_never_adds_a_replica_holds_nothing(
    shared_cluster: KindCluster, inference_image: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared_cluster.load(inference_image, name=serving.IMAGE)
    monkeypatch.setattr(cluster_scenes, "ready_cluster", lambda: shared_cluster)
    monkeypatch.setattr(cluster_hold, "LONGEST", 25)
    scaler = yaml.safe_load((CHECKOUT / "solutions/4.4.5/hold-p95/answer/autoscaler.yaml").read_text())
    scaler["spec"]["behavior"]["scaleUp"] = {"selectPolicy": "Disabled"}
    (tmp_path / "autoscaler.yaml").write_text(yaml.safe_dump(scaler))
    with pytest.raises(NotYet, match="with 1 replicas fewer than 95 of 100 are answered") as refused:
        cluster_hold.require_holds(tmp_path)
    assert "refused (429, the queue is full)" in refused.value.seen
