"""What lab 4.4.5's steps read back: it holds when it is so, and is refused when it is not."""

from __future__ import annotations

import base64
from collections.abc import Iterator

import pytest

from course_lib import images, waits
from course_lib.cluster import Deployer, KindCluster, accidents, gpu, readings, serving
from course_lib.cluster.serving import Spread
from course_lib.errors import CourseError
from course_lib.lab import steps
from course_lib.lab.store import Evidence
from course_lib.settings import CHECKOUT
from tests.cluster.web import silent

pytestmark = [pytest.mark.docker, pytest.mark.cluster]

NAME = serving.DEPLOYMENT
ROW = images.samples(1)[0]


@pytest.fixture(scope="module")
def served(shared_cluster: KindCluster, inference_image: str) -> Iterator[Deployer]:
    """The server, one replica and no autoscaler, in the namespace that its manifests name."""
    shared_cluster.load(inference_image, name=serving.IMAGE)
    found = Deployer(serving.NAMESPACE, kubeconfig=shared_cluster.kubeconfig, kubectl=shared_cluster.source)
    serving.make_key(found)
    found.apply(CHECKOUT / "k8s" / "overlays" / "local")
    found.api.delete("autoscaling/v2", "HorizontalPodAutoscaler", NAME, serving.NAMESPACE)
    found.wait(NAME)
    yield found
    shared_cluster.kubectl("delete", "namespace", serving.NAMESPACE, timeout=300)  # waits: other tests make it anew


@pytest.fixture
def read() -> Iterator[list[Evidence]]:
    """What was recorded meanwhile."""
    found: list[Evidence] = []
    token = steps._current.set(found)
    yield found
    steps._current.reset(token)


def test_nodes(shared_cluster: KindCluster, read: list[Evidence]) -> None:
    assert len(readings.require_nodes_ready(shared_cluster)) == 2
    assert [one.fact for one in read] == ["cluster.node", "cluster.node", "cluster.nodes-ready"]


def test_a_node_that_is_missing(shared_cluster: KindCluster) -> None:
    more = KindCluster("tests", source=shared_cluster.source, workers=2)
    more.name, more.folder = shared_cluster.name, shared_cluster.folder
    with pytest.raises(CourseError, match="1 nodes are not in the cluster"):
        readings.require_nodes_ready(more)


def test_a_configuration_for_gpus_is_read_by_kind(shared_cluster: KindCluster, read: list[Evidence]) -> None:
    config = gpu.require_config(shared_cluster)
    assert "nvidia" in config["nodes"][-1]["extraMounts"][0]["containerPath"]
    assert [one.fact for one in read] == ["cluster.gpu-config"]


def test_a_configuration_that_kind_does_not_know(shared_cluster: KindCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    config = shared_cluster.config(gpu=True)
    config["nodes"][-1]["extraMount"] = config["nodes"][-1].pop("extraMounts")
    monkeypatch.setattr(shared_cluster, "config", lambda **_: config, raising=False)
    with pytest.raises(CourseError, match="kind refuses the configuration") as failed:
        gpu.require_config(shared_cluster)
    assert "extraMount" in failed.value.why


def test_a_rollout(served: Deployer, read: list[Evidence]) -> None:
    rows = readings.require_rolled_out(served, NAME, image=serving.IMAGE)
    assert [row["object"] for row in rows] == ["Deployment", "ReplicaSet", "Pod"]
    assert [one.fact for one in read] == ["pod.ready", "deployment.rolled-out"]
    with pytest.raises(CourseError, match=f"runs {serving.IMAGE}"):
        readings.require_rolled_out(served, NAME, image="another:1")


def test_settings_and_a_key_in_use(served: Deployer, read: list[Evidence]) -> None:
    assert readings.require_settings_in_use(served, NAME)["PORT"] == "8080"
    assert [one.fact for one in read] == ["config.in-use", "secret.in-use"]


def test_a_setting_that_no_process_has(served: Deployer) -> None:
    """A ConfigMap that is changed in place reaches nobody until the pods are replaced."""
    pod = served.api.get("v1", "Pod", served.pods(NAME)[0].name, serving.NAMESPACE)
    name = pod["spec"]["containers"][0]["envFrom"][0]["configMapRef"]["name"]
    before = served.api.get("v1", "ConfigMap", name, serving.NAMESPACE)["data"]["DRAIN_SECONDS"]
    served.api.patch("v1", "ConfigMap", name, serving.NAMESPACE, {"data": {"DRAIN_SECONDS": "7"}})
    try:
        with pytest.raises(CourseError, match=f"DRAIN_SECONDS is '{before}' in pod .* and '7' in ConfigMap"):
            readings.require_settings_in_use(served, NAME)
    finally:
        served.api.patch("v1", "ConfigMap", name, serving.NAMESPACE, {"data": {"DRAIN_SECONDS": before}})


def _looked_at_again(served: Deployer) -> None:
    """The kubelet looks at the pod now, in which another key may be: by itself it does so about once a minute."""
    pod = served.pods(NAME)[0].name
    served.api.patch("v1", "Pod", pod, serving.NAMESPACE, {"metadata": {"annotations": {"course/looked-at": "again"}}})

    def back() -> None:
        try:
            readings.require_settings_in_use(served, NAME)
        except CourseError as error:
            raise waits.NotYet(error.what) from None

    waits.until(back, what="the key to be in the pod again", timeout=150, every=1)


def test_a_key_that_is_not_in_the_pod(served: Deployer) -> None:
    """About once a minute the kubelet brings a changed Secret into the pod, so it may be there at once: not three times in a row."""
    before = served.api.get("v1", "Secret", serving.KEYS, serving.NAMESPACE)["data"]

    def key_changed_and_read(number: int) -> str:
        other = {"data": {"keys": base64.b64encode(f"lab:another{number}".encode()).decode()}}
        served.api.patch("v1", "Secret", serving.KEYS, serving.NAMESPACE, other)
        try:
            readings.require_settings_in_use(served, NAME)
        except CourseError as error:
            return error.what
        return "the pod has it already"

    try:
        said = [key_changed_and_read(number) for number in range(3)]
        assert any("is not the one of Secret" in one for one in said), said
    finally:
        served.api.patch("v1", "Secret", serving.KEYS, serving.NAMESPACE, {"data": before})
        _looked_at_again(served)


def test_an_answer_from_outside(served: Deployer, shared_cluster: KindCluster, read: list[Evidence]) -> None:
    address = shared_cluster.address()
    row = readings.require_answered_outside(served, NAME, address, ROW.pixels, ROW.label)
    assert row["answer"] == ROW.label and row["counted by"] in [pod.name for pod in served.pods(NAME)]
    assert [one.fact for one in read] == ["service.endpoints", "service.answered"]
    with pytest.raises(CourseError, match=f"the answer is '{ROW.label}', and 'x' is right"):
        readings.require_answered_outside(served, NAME, address, ROW.pixels, "x")


def test_a_service_that_sends_to_nobody(served: Deployer, shared_cluster: KindCluster) -> None:
    selector = served.api.get("v1", "Service", serving.SERVICE, serving.NAMESPACE)["spec"]["selector"]
    nobody = {"spec": {"selector": {key: "nobody" for key in selector}}}
    served.api.patch("v1", "Service", serving.SERVICE, serving.NAMESPACE, nobody)
    address = shared_cluster.address()
    try:
        waits.until(lambda: silent(address), what="the nodes to follow the Service", timeout=90)
        with pytest.raises(CourseError, match=f"waited 2 s for an answer at {address}") as failed:
            readings.require_answered_outside(served, NAME, address, ROW.pixels, ROW.label, timeout=2)
        assert "kubectl get endpoints" in failed.value.do
    finally:
        served.api.patch("v1", "Service", serving.SERVICE, serving.NAMESPACE, {"spec": {"selector": selector}})


def test_a_pod_that_asks_for_a_gpu(served: Deployer, shared_cluster: KindCluster, read: list[Evidence]) -> None:
    """First no node is said to have one; then one claims to, and has none to give."""
    asked = gpu.request(served, serving.IMAGE)
    assert not asked.used and "node affinity" in asked.said
    worker = shared_cluster.containers[-1]
    shared_cluster.kubectl("label", "node", worker, f"{gpu.GPU}.present=true")
    try:
        asked = gpu.request(served, serving.IMAGE)
        assert not asked.used and f"Insufficient {gpu.GPU}" in asked.said
    finally:
        shared_cluster.kubectl("label", "node", worker, f"{gpu.GPU}.present-")
    assert [one.fact for one in read] == ["gpu.requested", "gpu.outcome"] * 2


def test_replicas_share_the_requests(served: Deployer, shared_cluster: KindCluster, read: list[Evidence]) -> None:
    served.scale(NAME, 3)
    readings.require_replicas(served, NAME, 3)
    rows = [sample.pixels for sample in images.samples(20)]
    found = serving.ask_many(served, shared_cluster.address(), rows, 45)
    readings.require_spread(served, NAME, found, replicas=3)
    served.scale(NAME, 1)
    readings.require_replicas(served, NAME, 1)
    assert [one.fact for one in read] == ["replicas.count", "replicas.spread", "replicas.count"]
    with pytest.raises(CourseError, match="waited 1 s for 2 pods"):
        readings.require_replicas(served, NAME, 2, timeout=1)


@pytest.mark.parametrize(
    ("by_pod", "said"),
    [
        ({"a": 10.0, "b": 10.0}, "2 of 3 replicas have answered"),
        ({"a": 10.0, "b": 10.0, "c": 0.0}, "2 of 3 replicas have answered"),
        ({"a": 5.0, "b": 5.0, "c": 5.0}, "20 were sent, and the pods have counted 15"),
    ],
)
def test_requests_that_were_not_shared(by_pod: dict[str, float], said: str) -> None:
    with pytest.raises(CourseError, match=said):
        readings.require_spread(None, NAME, Spread(20, by_pod), replicas=3)  # type: ignore[arg-type]  # asked nothing


def test_a_frozen_server(served: Deployer, shared_cluster: KindCluster, read: list[Evidence]) -> None:
    """It loses its traffic first, and is restarted then."""
    served.scale(NAME, 2)
    readings.require_replicas(served, NAME, 2)
    pod = served.pods(NAME)[0]
    with pytest.raises(CourseError, match="to be left out"):
        readings.require_no_traffic(served, NAME, pod, timeout=1)
    with pytest.raises(CourseError, match="to be restarted"):
        readings.require_restarted(served, NAME, pod, timeout=1)
    accidents.freeze(shared_cluster, served, pod)
    readings.require_no_traffic(served, NAME, pod)
    assert readings.require_restarted(served, NAME, pod).restarts == pod.restarts + 1
    assert [one.fact for one in read][-2:] == ["pod.no-traffic", "pod.restarted"]


def test_a_crash_is_no_verdict_of_a_probe(served: Deployer, shared_cluster: KindCluster) -> None:
    readings.require_replicas(served, NAME, 2)
    pod = served.pods(NAME)[1]
    accidents.crash(shared_cluster, served, pod)
    with pytest.raises(CourseError, match="was restarted, but not by its liveness probe"):
        readings.require_restarted(served, NAME, pod)
