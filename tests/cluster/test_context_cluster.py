"""Lab 4.4.5 on a cluster that is there already: pushed to a registry, answered from outside, and gone without a trace.

A cluster of the course's plays the one that somebody has: it is reached by a kubeconfig and a context only. Its nodes pull from
a registry that both sides know as a port of 127.0.0.1, which containerd and Docker alike take for plain HTTP.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import yaml

from course_lib import cleanup, images, kube_rows, ledger, shell, waits
from course_lib.cluster import ContextCluster, Deployer, KindCluster, accidents, gpu, processes, readings, serving
from course_lib.errors import CourseError
from course_lib.exercises import cluster_one_gpu
from course_lib.exercises import cluster_scenes as scenes
from course_lib.images import registry
from course_lib.lab import steps
from course_lib.lab.store import Evidence
from course_lib.settings import CHECKOUT, settings

#: By night: minutes, for a second cluster and a registry.
pytestmark = [pytest.mark.docker, pytest.mark.cluster, pytest.mark.nightly]

NAME = serving.DEPLOYMENT
ROW = images.samples(1)[0]


@dataclass(frozen=True)
class Abroad:
    """The lab on somebody's cluster."""

    theirs: KindCluster
    """What only the cluster's owner uses."""
    cluster: ContextCluster
    deployer: Deployer
    environment: dict[str, str]

    def namespaces(self) -> set[str]:
        return set(self.theirs.kubectl("get", "namespaces", "--output=name", show=False).output.split())


def led_to(registry_: registry.Registry, theirs: KindCluster) -> None:
    """Lets the nodes find a registry at the very address that this machine pushes to."""
    name, port = registry_.container.name, registry_.address.rpartition(":")[2]
    wanted = f'--format={{{{(index .NetworkSettings.Networks "{theirs.name}").IPAddress}}}}'
    address = shell.run(["docker", "inspect", wanted, name], show=False).output
    for node in theirs.containers:
        carry = ["socat", f"TCP-LISTEN:{port},bind=127.0.0.1,fork,reuseaddr", f"TCP:{address}:5000"]
        shell.run(["docker", "exec", "--detach", node, *carry], show=False)


def persons_kubeconfig(theirs: KindCluster, file: Path) -> None:
    """What the cluster's owner would give: `mine` may do everything, `guest` nothing. Another one is current."""
    found = yaml.safe_load(theirs.kubeconfig.read_text())
    cluster, user = found["clusters"][0]["name"], found["users"][0]
    guest = {"name": "guest", "user": user["user"] | {"as": "guest"}}
    found["users"].append(guest)
    found["contexts"] = [
        {"name": "mine", "context": {"cluster": cluster, "user": user["name"]}},
        {"name": "guest", "context": {"cluster": cluster, "user": "guest"}},
    ]
    found["current-context"] = "guest"
    file.write_text(yaml.safe_dump(found))


@pytest.fixture(scope="module")
def abroad(
    shared_cluster: KindCluster, inference_image: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Abroad]:
    """The lab's Deployment there, one replica, no autoscaler."""
    folder = tmp_path_factory.mktemp("abroad")
    persons_kubeconfig(shared_cluster, folder / "kubeconfig")
    near = [f"--network={shared_cluster.name}"]
    with pytest.MonkeyPatch.context() as patch, registry.running("abroad", options=near) as pushed_to:
        led_to(pushed_to, shared_cluster)
        environment = {
            "COURSE_STATE_DIR": str(folder / "state"), "COURSE_WORK_DIR": str(folder / "work"),
            "KUBECONFIG": str(folder / "kubeconfig"), "TARGET": "kube-context", "KUBE_CONTEXT": "mine",
            "KUBE_REGISTRY": f"{pushed_to.address}/me",
        }  # fmt: skip
        for name, value in environment.items():
            patch.setenv(name, value)
        settings.cache_clear()
        cluster = scenes.lab_cluster()
        assert isinstance(cluster, ContextCluster)
        cluster.up()
        cluster.load(inference_image, name=serving.IMAGE)
        deployer = scenes.deployer(cluster)
        serving.make_key(deployer)
        deployer.apply(CHECKOUT / "k8s" / "overlays" / "local")
        deployer.api.delete("autoscaling/v2", "HorizontalPodAutoscaler", NAME, serving.NAMESPACE)
        try:
            deployer.wait(NAME)
            yield Abroad(shared_cluster, cluster, deployer, environment)
        finally:
            cluster.down()
    settings.cache_clear()


@pytest.fixture
def read() -> Iterator[list[Evidence]]:
    """What was recorded meanwhile."""
    found: list[Evidence] = []
    token = steps._current.set(found)
    yield found
    steps._current.reset(token)


# The lab's steps


def test_nodes_are_read(abroad: Abroad, read: list[Evidence]) -> None:
    assert [node.name for node in readings.require_nodes_ready(abroad.cluster)] == list(abroad.theirs.containers)
    gpu.require_config(abroad.cluster)
    assert [one.fact for one in read] == ["cluster.node", "cluster.node", "cluster.nodes-ready", "cluster.gpu-config"]
    told = yaml.safe_load(abroad.cluster.description.read_text())
    assert told["context"] == "mine" and set(told["nodes"]) == set(abroad.theirs.containers)


def test_pods_run_what_was_pushed(abroad: Abroad, read: list[Evidence]) -> None:
    readings.require_rolled_out(abroad.deployer, NAME, image=serving.IMAGE)
    pulled = abroad.deployer.pods(NAME)[0].image
    assert pulled.startswith(f"{abroad.environment['KUBE_REGISTRY']}/inference-server@sha256:")
    assert abroad.cluster.images() == [serving.IMAGE]
    with pytest.raises(CourseError, match="runs"):
        readings.require_rolled_out(abroad.deployer, NAME, image="another:1")


def test_settings_are_in_use_where_processes_see_each_other(abroad: Abroad, read: list[Evidence]) -> None:
    pod = abroad.deployer.pods(NAME)[0].name
    assert processes.first(abroad.deployer, pod) > 1
    assert readings.require_settings_in_use(abroad.deployer, NAME)["PORT"] == "8080"


def test_it_is_answered_by_a_port_of_the_nodes(abroad: Abroad, read: list[Evidence]) -> None:
    address = abroad.cluster.address()
    assert not address.startswith("http://127.") and not address.endswith(":30080"), "whatever port was free"
    readings.require_answered_outside(abroad.deployer, NAME, address, ROW.pixels, ROW.label)
    with pytest.raises(CourseError, match="asks for port 30081"):
        abroad.cluster.address(30081)


def test_a_forwarded_port_shares_requests_out(
    abroad: Abroad, read: list[Evidence], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where nodes are in another network."""
    monkeypatch.setattr(abroad.cluster, "_reached", lambda port: "", raising=True)
    address = abroad.cluster.address()
    assert address.startswith("http://127.0.0.1:") and abroad.cluster.address() == address
    readings.require_answered_outside(abroad.deployer, NAME, address, ROW.pixels, ROW.label)
    abroad.deployer.scale(NAME, 2)
    readings.require_replicas(abroad.deployer, NAME, 2)
    found = serving.ask_many(abroad.deployer, address, [ROW.pixels], 30)
    readings.require_spread(abroad.deployer, NAME, found, replicas=2)


def test_a_server_is_frozen_and_killed_from_inside(abroad: Abroad, read: list[Evidence]) -> None:
    abroad.deployer.scale(NAME, 2)
    readings.require_replicas(abroad.deployer, NAME, 2)
    pod = abroad.deployer.pods(NAME)[0]
    accidents.freeze(abroad.cluster, abroad.deployer, pod)
    readings.require_no_traffic(abroad.deployer, NAME, pod)
    accidents.crash(abroad.cluster, abroad.deployer, pod)

    def again() -> None:
        now = next(one for one in abroad.deployer.pods(NAME) if one.name == pod.name)
        if now.restarts != pod.restarts + 1 or not now.ready:
            raise waits.NotYet(now.words())

    waits.until(again, what="the pod to be started again", timeout=60, every=0.3)
    abroad.deployer.scale(NAME, 1)
    readings.require_replicas(abroad.deployer, NAME, 1)


def test_a_first_process_is_not_stopped_from_inside(abroad: Abroad) -> None:
    """A pod that others made: nothing is sent to it, and why is said."""
    system = Deployer("kube-system", kubeconfig=abroad.cluster.kubeconfig)
    pod = next(one for one in system.pods("metrics-server") if one.ready)
    with pytest.raises(CourseError, match="can't be stopped or killed from inside") as told:
        accidents.freeze(abroad.cluster, system, pod)
    assert "shareProcessNamespace" in told.value.do


def test_a_pod_that_asks_for_a_gpu(abroad: Abroad, read: list[Evidence]) -> None:
    asked = gpu.request(abroad.deployer, serving.IMAGE)
    assert not asked.used and "node affinity" in asked.said
    assert "not shown on this cluster" in str(cluster_one_gpu.deadlock(abroad.cluster))


# What is somebody else's


def on(abroad: Abroad, node: str) -> tuple[set[str], set[str]]:
    """(the lab's, the others') pods on a node."""
    said = abroad.theirs.kubectl("get", "pods", "--all-namespaces", "--output=json", show=False).stdout
    here = [one for one in json.loads(said)["items"] if one["spec"].get("nodeName") == node]
    lab = {one["metadata"]["uid"] for one in here if kube_rows.CHECKOUT_LABEL in (one["metadata"].get("labels") or {})}
    return lab, {one["metadata"]["uid"] for one in here} - lab


def test_a_node_is_emptied_with_its_owners_leave_and_of_the_labs_pods_only(
    abroad: Abroad, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    node = abroad.deployer.pods(NAME)[0].node
    mine, others = on(abroad, node)
    assert mine and others
    with abroad.cluster.drained(node) as done:
        assert not done and all(one.schedulable for one in abroad.cluster.nodes())
    assert "KUBE_CORDON" in capsys.readouterr().out
    monkeypatch.setattr(abroad.cluster, "cordons", True)
    with abroad.cluster.drained(node) as done:
        assert done and on(abroad, node) == (set(), others)
        assert "cordon" in [row.kind for row in ledger.rows()]
    assert all(one.schedulable for one in abroad.cluster.nodes())
    assert "cordon" not in [row.kind for row in ledger.rows()]
    readings.require_replicas(abroad.deployer, NAME, 1)


def test_a_namespace_of_somebody_is_left_alone(abroad: Abroad) -> None:
    abroad.theirs.kubectl("create", "namespace", "precious")
    try:
        with pytest.raises(CourseError, match="has a namespace precious already"):
            scenes.deployer(abroad.cluster, "precious")
        abroad.cluster.release("precious")
        assert "namespace/precious" in abroad.namespaces()
    finally:
        abroad.theirs.kubectl("delete", "namespace", "precious", "--wait=false")


def test_a_room_of_an_exercise_goes(abroad: Abroad) -> None:
    with scenes.room(abroad.cluster, "a-room") as found:
        assert found.namespace == "a-room" and "namespace/a-room" in abroad.cluster.left()
        rows = [row.name for row in ledger.rows() if row.kind == "namespace"]
        assert any(name.startswith("a-room of ") for name in rows)
    assert "namespace/a-room" not in abroad.namespaces()


def test_a_user_who_may_not(abroad: Abroad) -> None:
    found = ContextCluster("guest", source="debian", context="guest", registry="registry.example.com/me")
    with pytest.raises(CourseError, match="this user may not create namespaces on guest") as told:
        found.up()
    assert "KUBE_CONTEXT" in told.value.do
    found.down()


# Images


def test_an_image_that_no_node_could_run(abroad: Abroad, tmp_path: Path) -> None:
    (node, *_) = abroad.cluster.nodes()
    other = "arm64" if node.architecture == "amd64" else "amd64"
    name, archive = settings().object_name("other-architecture") + ":2", tmp_path / "root.tar"
    shell.run(["tar", "--create", f"--file={archive}", "--files-from=/dev/null"], show=False)
    shell.run(["docker", "import", f"--platform=linux/{other}", str(archive), name], show=False)
    try:
        with pytest.raises(CourseError, match=f"is for {other}, and the nodes of mine are {node.architecture}") as told:
            abroad.cluster.load(name)
        assert "--platform" in told.value.do and name not in abroad.cluster.images()
    finally:
        shell.run(["docker", "image", "rm", name], show=False)
    with pytest.raises(CourseError, match="has no image"):
        abroad.cluster.load("course-test/never-built:1")


def test_a_registry_that_wants_a_login(abroad: Abroad, small_image: str, monkeypatch: pytest.MonkeyPatch) -> None:
    env = {
        "REGISTRY_AUTH": "htpasswd", "REGISTRY_AUTH_HTPASSWD_REALM": "course",
        "REGISTRY_AUTH_HTPASSWD_PATH": "/dev/null",
    }  # fmt: skip
    with images.running(registry.ensure_image(), "closed-registry", port=5000, env=env) as closed:
        monkeypatch.setattr(abroad.cluster, "registry", f"127.0.0.1:{closed.port}/me")

        def asks_for_a_login() -> None:
            try:
                assert httpx.get(f"{closed.url}/v2/").status_code == 401
            except httpx.HTTPError as error:
                raise waits.NotYet(str(error)) from None

        waits.until(asks_for_a_login, what="the registry", timeout=30, diagnose=closed.logs)
        with pytest.raises(CourseError, match="does not let you push") as told:
            abroad.cluster.load(small_image)
    assert "docker login" in told.value.do
    with pytest.raises(CourseError, match="does not answer") as told:
        abroad.cluster.load(small_image)
    assert "KUBE_REGISTRY" in told.value.do


# Ends

BEGINS = """
import time
from course_lib.exercises import cluster_scenes as scenes
cluster = scenes.lab_cluster()
cluster.up()
scenes.deployer(cluster, "killed")
print("made", flush=True)
time.sleep(600)
"""


def test_a_session_that_is_killed_leaves_nothing_there(abroad: Abroad, tmp_path: Path) -> None:
    environment = os.environ | {"COURSE_WORK_DIR": str(tmp_path / "work")}
    process = subprocess.Popen(
        [sys.executable, "-c", BEGINS], cwd=CHECKOUT, env=environment, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert "made\n" in iter(process.stdout.readline, "")
    assert "namespace/killed" in abroad.namespaces()
    with pytest.raises(CourseError, match="belongs to another notebook"):
        scenes.deployer(abroad.cluster, "killed")
    process.send_signal(signal.SIGKILL)
    process.wait(10)

    def gone() -> None:
        rows = [row.name for row in ledger.rows() if row.name.startswith("killed ") or str(tmp_path) in row.name]
        copies = list((tmp_path / "work").rglob("kubeconfig"))
        if "namespace/killed" in abroad.namespaces() or rows or copies:
            raise waits.NotYet(f"{rows} {copies}")

    waits.until(gone, what="the reaper", timeout=60)
    assert not [name for kind, name in cleanup.survey().left if kind == "namespace"]


def test_the_end_leaves_the_cluster_as_it_was(abroad: Abroad) -> None:
    """The last test: after it nothing of the lab is there."""
    abroad.cluster.down()
    assert abroad.cluster.left() == [] and not abroad.cluster.folder.exists()
    assert "namespace/inference" not in abroad.namespaces() and "namespace/kube-system" in abroad.namespaces()
    assert {row.kind for row in ledger.rows()} <= {"container"}, "the registry's"
    labelled = ["get", "nodes,clusterroles,clusterrolebindings,persistentvolumes", "--output=name"]
    assert not abroad.theirs.kubectl(*labelled, f"--selector={kube_rows.CHECKOUT_LABEL}", show=False).output
