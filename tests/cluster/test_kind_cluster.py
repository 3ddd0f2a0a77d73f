"""Clusters on this machine: made, looked at, loaded with images, and gone without a trace."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from course_lib import ledger, reaper, shell, waits
from course_lib.cluster import KindCluster, sysctls
from course_lib.cluster.tools import Source
from course_lib.errors import CourseError
from course_lib.settings import CHECKOUT, settings

pytestmark = [pytest.mark.docker, pytest.mark.cluster]


def objects(found: KindCluster) -> set[str]:
    """`kind name` of everything that this machine still has of a cluster."""
    mine = f"--filter=label=io.x-k8s.kind.cluster={found.name}"
    listed = shell.run(["docker", "ps", "--all", "--format=container {{.Names}}", mine], show=False).stdout.splitlines()
    named = shell.run(["docker", "network", "ls", "--format={{.Name}}"], show=False).output.split()
    left = {*listed, *(f"network {name}" for name in named if name == found.name)}
    left |= {f"folder {path}" for path in [found.folder] if path.exists()}
    return left | {f"row {row.kind} {row.name}" for row in ledger.rows() if row.name.startswith(found.name)}


def volumes(found: KindCluster) -> set[str]:
    """The nameless volumes that its nodes keep their containers in."""
    wanted = "--format={{range .Mounts}}{{.Name}} {{end}}"
    return set(shell.run(["docker", "inspect", wanted, *found.containers], show=False).output.split())


def home_config() -> str:
    file = Path.home() / ".kube" / "config"
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.exists() else "none"


# What a cluster is


def test_every_node_is_ready(shared_cluster: KindCluster) -> None:
    control, worker = shared_cluster.nodes()
    assert (control.role, worker.role) == ("control-plane", "worker")
    assert control.ready and worker.ready and worker.schedulable
    assert {control.name, worker.name} == set(shared_cluster.containers)


def test_a_start_says_where_its_time_went(shared_cluster: KindCluster) -> None:
    phases, steps = shared_cluster.phases, shared_cluster.kind_steps()
    assert list(phases)[1:] == ["kind create cluster", "every node Ready", "metrics server"]
    assert {"Preparing nodes", "Starting control-plane", "Joining worker nodes"} <= set(steps)
    assert 0 < sum(steps.values()) <= phases["kind create cluster"]


def test_a_second_start_leaves_it_alone(shared_cluster: KindCluster) -> None:
    def started() -> list[str]:
        wanted = "--format={{.State.StartedAt}}"
        return shell.run(["docker", "inspect", wanted, *shared_cluster.containers], show=False).output.split()

    before = started()
    shared_cluster.up()
    assert started() == before


def test_the_persons_own_kubeconfig_is_not_touched(shared_cluster: KindCluster) -> None:
    text = shared_cluster.kubeconfig.read_text()
    assert shared_cluster.name in text and "https://127.0.0.1:" in text
    own = Path.home() / ".kube" / "config"
    assert not own.exists() or shared_cluster.name not in own.read_text()


def test_only_this_machine_reaches_it(shared_cluster: KindCluster) -> None:
    said = shell.run(["docker", "port", shared_cluster.containers[0]], show=False).stdout.splitlines()
    assert len(said) == 3, "the API server and two node ports"
    assert all(line.partition(" -> ")[2].startswith("127.0.0.1:") for line in said)


def test_the_metrics_api_answers(shared_cluster: KindCluster) -> None:
    shared_cluster.wait_metrics()

    def measured() -> str:
        said = shared_cluster.kubectl("top", "nodes", "--no-headers", show=False, check=False).output
        if not said:
            raise waits.NotYet("no figures yet")
        return said

    said = waits.until(measured, what="the first figures", timeout=240, every=1)
    assert all(node in said for node in shared_cluster.containers)


def test_the_metrics_api_is_registered_when_its_server_answers(shared_cluster: KindCluster) -> None:
    """Earlier, the API server would ask an address that no node knows yet, and may keep whatever answers there."""

    def get(*what: str) -> dict[str, Any]:
        found = shared_cluster.kubectl("get", "--namespace=kube-system", "--output=json", *what, show=False)
        return dict(json.loads(found.stdout))

    conditions = get("deployment", "metrics-server")["status"]["conditions"]
    (rolled_out,) = [one["lastUpdateTime"] for one in conditions if one["type"] == "Progressing"]
    assert get("apiservice", "v1beta1.metrics.k8s.io")["metadata"]["creationTimestamp"] >= rolled_out


def test_a_port_that_does_not_lead_outside(shared_cluster: KindCluster) -> None:
    assert shared_cluster.address().startswith("http://127.0.0.1:")
    with pytest.raises(CourseError, match="port 31000 of the nodes does not lead outside") as failed:
        shared_cluster.address(31000)
    assert "30080" in failed.value.do


def test_a_service_is_answered_outside(shared_cluster: KindCluster, small_image: str) -> None:
    shared_cluster.load(small_image)
    assert any(name.endswith(small_image) for name in shared_cluster.images())
    serve = ["python3", "-m", "http.server", "8000"]
    pod = {
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "outside", "labels": {"app": "outside"}},
        "spec": {"containers": [{"name": "one", "image": small_image, "imagePullPolicy": "Never", "command": serve}],
                 "terminationGracePeriodSeconds": 0},
    }  # fmt: skip
    service = {
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "outside"},
        "spec": {"type": "NodePort", "selector": {"app": "outside"}, "ports": [{"port": 8000, "nodePort": 30081}]},
    }  # fmt: skip
    both = json.dumps({"apiVersion": "v1", "kind": "List", "items": [pod, service]})
    shared_cluster.kubectl("apply", "--filename=-", input=both)
    try:

        def answered() -> None:
            try:
                assert httpx.get(shared_cluster.address(30081), timeout=2).status_code == 200
            except httpx.HTTPError as error:
                raise waits.NotYet(str(error)) from None

        waits.until(answered, what="an answer", timeout=150, every=0.5)
    finally:
        shared_cluster.kubectl("delete", "pod/outside", "service/outside", "--wait=false")


# Images


def test_an_image_that_is_not_here(shared_cluster: KindCluster) -> None:
    with pytest.raises(CourseError, match="has no image course-test/never-built:1"):
        shared_cluster.load("course-test/never-built:1")


def test_an_image_of_another_architecture(shared_cluster: KindCluster, tmp_path: Path) -> None:
    """It would be loaded, and its first container would end with a sentence about formats."""
    other = (
        "arm64"
        if shell.run(["docker", "version", "--format={{.Server.Arch}}"], show=False).output == "amd64"
        else "amd64"
    )
    (tmp_path / "file").write_text("x")
    archive = tmp_path / "root.tar"
    shell.run(["tar", "--create", f"--file={archive}", f"--directory={tmp_path}", "file"], show=False)
    name = settings().object_name("other-architecture") + ":1"
    shell.run(["docker", "import", f"--platform=linux/{other}", str(archive), name], show=False)
    try:
        with pytest.raises(CourseError, match=f"is for {other}, and the nodes are") as failed:
            shared_cluster.load(name)
        assert "--platform" in failed.value.do
    finally:
        shell.run(["docker", "image", "rm", name], show=False)


# kubectl's errors


@pytest.mark.parametrize(
    ("manifest", "what"),
    [
        ("a: b: c", "a manifest can't be read"),
        ("apiVersion: apps/v9\nkind: Deployment\nmetadata: {name: x}", "knows no objects of that kind"),
        ("apiVersion: v1\nkind: Service\nmetadata: {name: x}\nspec: {ports: [{port: 99999}]}", "refuses a manifest"),
        ("apiVersion: v1\nkind: Pod\nmetadata: {name: x, namespace: nowhere}\nspec: {containers: [{name: x, image: x}]}", "the namespace is not there"),
    ],
    ids=["yaml", "kind", "value", "namespace"],
)  # fmt: skip
def test_a_manifest_that_is_wrong(shared_cluster: KindCluster, manifest: str, what: str) -> None:
    with pytest.raises(CourseError, match=what) as failed:
        shared_cluster.kubectl("apply", "--filename=-", input=manifest)
    assert failed.value.why and failed.value.do


def test_an_api_server_that_does_not_answer(own_work: Path, image_source: Source) -> None:
    found = KindCluster("stopped", source=image_source)
    found.folder.mkdir(parents=True)
    cluster = {"name": "c", "cluster": {"server": "https://127.0.0.1:1"}}
    context = {"name": "c", "context": {"cluster": "c", "user": ""}}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [cluster],
        "contexts": [context],
        "current-context": "c",
    }
    found.kubeconfig.write_text(json.dumps(config))
    with pytest.raises(CourseError, match="API server does not answer") as failed:
        found.nodes()
    assert "course cluster status" in failed.value.do
    with pytest.raises(CourseError, match="there is no cluster nowhere") as failed:
        KindCluster("nowhere", source=image_source).nodes()


# Beginnings and ends


@pytest.fixture
def alone(own_work: Path, image_source: Source) -> Iterator[KindCluster]:
    """A cluster of the test's own, of one node; not started."""
    found = KindCluster("alone", source=image_source, workers=0)
    yield found
    found.down()


def half_deleted(found: KindCluster, image: str) -> None:
    """What an end that was interrupted leaves: a node's container, the network, the kubeconfig of a cluster that is gone."""
    label = f"--label=io.x-k8s.kind.cluster={found.name}"
    shell.run(["docker", "network", "create", found.name], show=False)
    node = ["docker", "run", "--detach", f"--name={found.containers[0]}", f"--network={found.name}", label, image]
    shell.run([*node, "sleep", "600"], show=False)
    found.folder.mkdir(parents=True)
    found.kubeconfig.write_text("apiVersion: v1\nkind: Config\nclusters: []\n")


def test_two_live_side_by_side_and_one_leaves_nothing(
    shared_cluster: KindCluster, alone: KindCluster, small_image: str
) -> None:
    home_before = home_config()
    half_deleted(alone, small_image)
    alone.up()
    assert alone.name != shared_cluster.name and alone.address() != shared_cluster.address()
    assert [one.name for one in alone.nodes()] == list(alone.containers)
    stored = volumes(alone)
    alone.down()
    assert objects(alone) == set() and home_config() == home_before
    assert stored and not any(reaper.exists("volume", name) for name in stored)
    # Not the kernel's settings themselves: clusters of other ledgers may come and go meanwhile.
    assert not [row for row in ledger.rows() if row.name.endswith(f" for {alone.name}")]

    def goes_on() -> None:
        if waiting := [one.words() for one in shared_cluster.nodes() if not one.ready]:
            raise waits.NotYet("; ".join(waiting))

    waits.until(goes_on, what="the other one to go on", timeout=120)


def test_kernel_settings_are_put_back_by_the_last_that_goes(
    own_work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the second cluster came while the first had changed them, and the first goes before its kubelet is up.

    On files of the test's own: the kernel's are those of other clusters on this machine, too.
    """
    key, other, wanted = "kernel.panic", "17", sysctls.KUBELET["kernel.panic"]
    monkeypatch.setattr(reaper, "_sysctl_file", lambda name: tmp_path / name)
    monkeypatch.setattr(sysctls, "NOTES", tmp_path / "notes")
    for each, value in sysctls.KUBELET.items():
        (tmp_path / each).write_text(value)

    def kubelet(value: str) -> None:
        (tmp_path / key).write_text(value)

    kubelet(other)
    sysctls.write_down("first", "run")
    kubelet(wanted)
    sysctls.write_down("second", "run")
    sysctls.put_back("first")
    assert reaper.sysctl(key) == wanted, "the second one needs it"
    kubelet(wanted)
    sysctls.put_back("second")
    assert reaper.sysctl(key) == other and not [row for row in ledger.rows() if row.kind == "sysctl"]


def test_kernel_settings_of_clusters_that_know_nothing_of_one_another(
    own_work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two users, or of two ledgers: the second one's kubelet sets them anew when the first has put them back."""
    key, other, wanted = "kernel.panic", "17", sysctls.KUBELET["kernel.panic"]
    running = True
    monkeypatch.setattr(reaper, "_sysctl_file", lambda name: tmp_path / name)
    monkeypatch.setattr(sysctls, "NOTES", tmp_path / "notes")
    monkeypatch.setattr(sysctls, "clusters_run", lambda: running)
    for each, value in sysctls.KUBELET.items():
        (tmp_path / each).write_text(value)

    def of(state: str) -> None:
        monkeypatch.setenv("COURSE_STATE_DIR", str(tmp_path / state))
        settings.cache_clear()

    of("one")
    (tmp_path / key).write_text(other)
    sysctls.write_down("first", "run")
    (tmp_path / key).write_text(wanted)
    of("another")
    sysctls.write_down("second", "run")
    of("one")
    sysctls.put_back("first")
    assert reaper.sysctl(key) == other
    (tmp_path / key).write_text(wanted)  # by the kubelet of the second
    of("another")
    running = False
    sysctls.put_back("second")
    assert reaper.sysctl(key) == other and not sysctls.NOTES.exists()
    (tmp_path / key).write_text(wanted)  # by a person
    sysctls.write_down("third", "run")
    assert ledger.rows() == []


STARTS = """
from course_lib.cluster import KindCluster
import sys
KindCluster("killed", source=sys.argv[1], workers=0, lifetime="kept").up()
"""


def test_a_start_that_is_killed_leaves_nothing(own_work: Path, image_source: Source) -> None:
    """Neither does one that a person wanted to keep: it is kept from when it is whole."""
    found = KindCluster("killed", source=image_source, workers=0)
    environment = os.environ | {"COURSE_WORK_DIR": str(own_work / "work")}
    process = subprocess.Popen([sys.executable, "-c", STARTS, image_source], cwd=CHECKOUT, env=environment)

    def begun() -> None:
        assert process.poll() is None
        if not any(one.startswith("container") for one in objects(found)):
            raise waits.NotYet("no container yet")

    waits.until(begun, what="the first node", timeout=240)
    process.send_signal(signal.SIGKILL)
    process.wait(10)

    def gone() -> None:
        if left := objects(found) | {row.name for row in ledger.rows() if row.name.endswith(f" for {found.name}")}:
            raise waits.NotYet(str(left))

    waits.until(gone, what="the reaper", timeout=180)


def test_on_a_gpu_host_the_nodes_are_told_to_see_it(alone: KindCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    def create(self: KindCluster, config: Path, **_: Any) -> None:
        raise CourseError("so far and no further", why=config.read_text())

    monkeypatch.setenv("PROFILE", "gpu")
    settings.cache_clear()
    monkeypatch.setattr(KindCluster, "create", create)
    with pytest.raises(CourseError) as told:
        alone.up()
    assert "runtime.nvidia.com/gpu/all" in told.value.why and objects(alone) == set()


def test_a_node_that_never_gets_ready_is_explained(
    alone: KindCluster, small_image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An image that is no node: the error has what its container said last, and nothing stays."""
    monkeypatch.setenv("COURSE_NODE_IMAGE", small_image)
    settings.cache_clear()
    with pytest.raises(CourseError, match="the cluster did not start") as failed:
        alone.up(timeout=120)
    assert alone.containers[0] in failed.value.why and failed.value.do
    assert objects(alone) == set()


def test_a_node_image_that_is_nowhere(alone: KindCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COURSE_NODE_IMAGE", "localhost:1/course-test/no-node:1")
    settings.cache_clear()
    with pytest.raises(CourseError, match="nodes' image could not be had from its registry") as failed:
        alone.up()
    assert "IMAGES=debian" in failed.value.do and objects(alone) == set()
