"""What goes wrong around a cluster: each ends in a sentence or in recovery, and nothing is left behind.

Beside these: an image that is not on the nodes (test_deployer_failures.py), one of another architecture, a cluster that is
half deleted, a start that is killed, a node that never gets ready (test_kind_cluster.py), a malformed manifest (both).
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from course_lib import cleanup, ledger, shell, waits
from course_lib.cluster import Deployer, KindCluster
from course_lib.cluster.tools import Source
from course_lib.errors import CourseError
from course_lib.steady_load import SteadyLoad
from tests.cluster.web import get, web

pytestmark = [pytest.mark.docker, pytest.mark.cluster]


@pytest.fixture
def broken(own_work: Path, image_source: Source, monkeypatch: pytest.MonkeyPatch) -> Iterator[KindCluster]:
    """A cluster that does not come up; afterwards nothing of it is there, and no row is left over."""
    engine = os.environ.get("DOCKER_HOST", "")
    found = KindCluster("broken", source=image_source, workers=0)
    yield found
    if os.environ.get("DOCKER_HOST", "") != engine:  # the test's own engine, gone by now
        monkeypatch.setenv("DOCKER_HOST", engine)
    assert found.left() == [] and not found.folder.exists() and ledger.rows() == []
    assert not [name for _, name in cleanup.survey().left if found.name in name]


def test_docker_is_stopped(broken: KindCluster, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DOCKER_HOST", f"unix://{tmp_path}/no-engine.sock")
        with pytest.raises(CourseError, match="Docker does not answer") as told:
            broken.up()
        assert "Start Docker" in told.value.do
        assert not cleanup.survey().engine


def test_the_disk_is_nearly_full(broken: KindCluster, small_engine: Path) -> None:
    """An engine on a disk of 300 MB."""
    with pytest.raises(CourseError, match=rf"the disk is nearly full: 0\.\d GB are free at {small_engine}") as told:
        broken.up()
    assert "docker system df" in told.value.do and "1 node needs 1.5" in told.value.what


def test_a_port_is_taken(broken: KindCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """The course's configurations ask for any free port; between the choice and the start another program may take it."""
    config = broken.config()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        config["nodes"][0]["extraPortMappings"][0]["hostPort"] = taken.getsockname()[1]
        monkeypatch.setattr(broken, "config", lambda **_: config, raising=False)
        with pytest.raises(CourseError, match="a port of this machine is taken by another program") as told:
            broken.up()
    assert "other free ports" in told.value.do


def test_traffic_goes_on_while_the_api_server_is_restarted(
    shared_cluster: KindCluster, deployer: Deployer, loaded: tuple[str, str]
) -> None:
    """Nodes lead requests to pods by what they know already. Every request is accounted for."""
    service: dict[str, Any] = {
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "steady"},
        "spec": {"type": "NodePort", "selector": {"app": "steady"}, "ports": [{"port": 8080, "nodePort": 30081}]},
    }  # fmt: skip
    # a moment's silence of this busy machine takes no pod out of the Service
    patient = {"readinessProbe": get("/") | {"failureThreshold": 20}}
    deployer.apply([web("steady", loaded[0], replicas=2, container=patient), service])
    deployer.wait("steady")
    address = shared_cluster.address(30081)
    inside = ["docker", "exec", shared_cluster.containers[0]]
    find = [*inside, "pgrep", "--oldest", "kube-apiserver"]

    def led() -> None:
        try:
            assert httpx.get(address, timeout=2).status_code == 200
        except httpx.HTTPError as error:
            raise waits.NotYet(str(error)) from None

    def answers() -> None:
        try:
            assert all(node.ready for node in shared_cluster.nodes())
        except CourseError as error:
            raise waits.NotYet(error.what) from None

    try:
        waits.until(led, what="the nodes to know the Service", timeout=120, every=0.2)
        with SteadyLoad(address, None, rate=20, keep_alive=False, timeout=60) as load:
            load.run_for(1)
            before = shell.run(find, show=False).output
            shell.run([*inside, "kill", "-9", before], show=False)
            waits.until(answers, what="the API server", timeout=240, every=0.3)
            load.run_for(2)
        assert shell.run(find, show=False).output != before
        numbers = sorted(one.number for one in load.sent)
        assert numbers == list(range(len(numbers))), "each one that was sent is accounted for"
        assert [one for one in load.sent if one.status != 200] == []
        deployer.wait("steady")
    finally:
        deployer.api.delete("v1", "Service", "steady", deployer.namespace)
        deployer.api.delete("apps/v1", "Deployment", "steady", deployer.namespace)
