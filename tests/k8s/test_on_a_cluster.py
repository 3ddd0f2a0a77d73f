"""The manifests on a real cluster: taken by its API server, and the pods are what the files say."""

from __future__ import annotations

import json
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from kubernetes.utils.quantity import parse_quantity

from course_lib import waits
from course_lib.cluster import KindCluster, serving
from course_lib.errors import CourseError
from course_lib.settings import CHECKOUT
from course_lib.steady_load import SteadyLoad
from tests.k8s.manifests import K8S, Manifest, kustomize, of_kind, write_overlay

pytestmark = [pytest.mark.cluster, pytest.mark.docker]

KEY = "a-key-of-this-test"
MODELS = CHECKOUT / "docker" / "inference-server" / "models"
SAMPLES = json.loads((MODELS / "digits" / "samples.json").read_text())


def get(cluster: KindCluster, *what: str) -> Manifest:
    found: Manifest = json.loads(
        cluster.kubectl("get", "--namespace=inference", "--output=json", *what, show=False).stdout
    )
    return found


def rolled_out(cluster: KindCluster) -> None:
    cluster.kubectl("rollout", "status", "--namespace=inference", "deployment/inference", "--timeout=300s", timeout=320)


def apply(cluster: KindCluster, scratch: Path, image: str, on: str, **more: Any) -> Path:
    """Applies a folder with the image that is on the nodes."""
    write_overlay(scratch, K8S / on, image=image, **more)
    cluster.kubectl("apply", "--server-side", f"--kustomize={scratch}")
    return scratch


@pytest.fixture(scope="module")
def namespace(kind_cluster: KindCluster) -> Iterator[KindCluster]:
    kind_cluster.kubectl("apply", "--server-side", f"--filename={K8S}/base/namespace.yaml")
    yield kind_cluster
    kind_cluster.kubectl("delete", "namespace", "inference", timeout=300)


@pytest.fixture(scope="module")
def deployed(namespace: KindCluster, inference_image: str, tmp_path_factory: pytest.TempPathFactory) -> KindCluster:
    """`local`, applied and ready."""
    namespace.kubectl(
        "create", "secret", "generic", "inference-keys", "--namespace=inference", "--from-file=keys=/dev/stdin",
        input=f"tests:{KEY}\n",
    )  # fmt: skip
    apply(namespace, tmp_path_factory.mktemp("local"), inference_image, "overlays/local")
    rolled_out(namespace)
    return namespace


@pytest.fixture
def client(deployed: KindCluster) -> Iterator[httpx.Client]:
    """Asks over the NodePort, from outside the cluster."""
    headers = {"Authorization": f"Bearer {KEY}"}
    serving.wait_for_service(deployed.address())
    with httpx.Client(base_url=deployed.address(), headers=headers, timeout=20, trust_env=False) as made:
        yield made


@pytest.mark.parametrize("folder", ["overlays/local", "overlays/gpu", "overlays/cloud", "gpu/time-slicing"])
def test_the_api_server_would_take_a_folder(folder: str, namespace: KindCluster) -> None:
    said = namespace.kubectl("apply", "--server-side", "--dry-run=server", f"--kustomize={K8S / folder}").output
    made = {line.split()[0] for line in said.splitlines()}
    assert len(made) == len(list(yaml.safe_load_all(kustomize(K8S / folder))))
    assert all("serverside-applied (server dry run)" in line for line in said.splitlines())


def test_the_api_server_would_refuse_a_typing_error(namespace: KindCluster, tmp_path: Path) -> None:
    deployment = of_kind(list(yaml.safe_load_all(kustomize(K8S / "overlays/local"))), "Deployment")[0]
    deployment["spec"]["replica"] = 3
    (tmp_path / "wrong.yaml").write_text(yaml.safe_dump(deployment))
    with pytest.raises(CourseError, match="a field that its kind does not have"):
        namespace.kubectl("apply", "--server-side", "--dry-run=server", f"--filename={tmp_path / 'wrong.yaml'}")


def test_a_pod_that_asks_for_more_than_the_namespace_allows_is_refused(namespace: KindCluster) -> None:
    """The labels of Pod Security; what an older server does with them is nothing."""
    version = namespace.nodes()[0].version
    if tuple(map(int, version.removeprefix("v").split(".")[:2])) < (1, 25):
        pytest.skip(f"Kubernetes {version} enforces no Pod Security; kind's current node does (nightly workflow)")
    container = {"name": "root", "image": "inference-server:local", "securityContext": {"privileged": True}}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "root"}, "spec": {"containers": [container]}}
    command = ("apply", "--server-side", "--dry-run=server", "--namespace=inference", "--filename=-")
    with pytest.raises(CourseError, match="PodSecurity"):
        namespace.kubectl(*command, input=json.dumps(pod))


def test_it_answers_from_outside(client: httpx.Client) -> None:
    assert client.get("/ready").status_code == 200
    answer = client.post("/predict", json={"inputs": SAMPLES[0]["pixels"], "model": "digits"})
    assert (answer.status_code, answer.json()["predicted_class"]) == (200, SAMPLES[0]["label"])


def test_it_wants_the_key_of_the_secret(client: httpx.Client) -> None:
    for headers in ({"Authorization": ""}, {"Authorization": "Bearer another-key"}):
        asked = client.post("/predict", json={"inputs": SAMPLES[0]["pixels"]}, headers=headers)
        assert asked.status_code == 401


def test_the_pod_is_shut_in(deployed: KindCluster) -> None:
    """Asked inside it, not of its manifest."""
    script = (
        "import os, pathlib as p\n"
        "print(os.getuid(), os.getgid())\n"
        "print([l.split()[1] for l in open('/proc/self/status') if l.startswith('CapEff')])\n"
        "for path in ('/app/x', '/x', '/run/secrets/inference/x', '/tmp/x'):\n"
        "    try: print(path, p.Path(path).write_text('x'))\n"
        "    except OSError as error: print(path, error.strerror)\n"
        "print(p.Path('/var/run/secrets/kubernetes.io').exists())\n"
    )
    said = deployed.kubectl("exec", "--namespace=inference", "deployment/inference", "--", "python3", "-c", script)
    assert said.output.splitlines() == [
        "10001 10001",
        "['0000000000000000']",
        "/app/x Read-only file system",
        "/x Read-only file system",
        "/run/secrets/inference/x Read-only file system",
        "/tmp/x 1",
        "False",
    ]


def test_the_autoscaler_reads_both_metrics(deployed: KindCluster) -> None:
    def probe() -> Manifest:
        status = get(deployed, "hpa", "inference")["status"]
        found = [one["resource"] for one in status.get("currentMetrics") or [] if "resource" in one]
        read = {one["name"]: one["current"] for one in found}
        if not {"cpu", "memory"} <= set(read):
            raise waits.NotYet(str(status.get("conditions")))
        return read

    def diagnose() -> str:
        asked = (
            ["get", "apiservice", "v1beta1.metrics.k8s.io", "--output=jsonpath={.status.conditions}"],
            ["get", "pods,endpoints", "--namespace=kube-system", "--output=wide"],
            ["logs", "--namespace=kube-system", "deployment/metrics-server", "--tail=15"],
        )
        return "\n".join(deployed.kubectl(*one, show=False, check=False).output for one in asked)

    read = waits.until(probe, what="the autoscaler to have numbers", timeout=300, every=1, diagnose=diagnose)
    assert read["cpu"]["averageUtilization"] >= 0
    assert parse_quantity(read["memory"]["averageValue"]) > 2**20


def test_one_replica_can_be_evicted(deployed: KindCluster) -> None:
    """The budget forbids no drain, not even of the last one."""

    def probe() -> None:
        status = get(deployed, "pdb", "inference")["status"]
        if not status.get("disruptionsAllowed"):
            raise waits.NotYet(str(status))

    waits.until(probe, what="the budget to allow one", timeout=180, every=0.5)


def test_a_rollout_loses_no_request(deployed: KindCluster) -> None:
    """Neither on the connections that a client keeps, which lead to the old pod until it closes them."""

    def pods() -> set[str]:
        found = get(deployed, "pods", "--selector=app.kubernetes.io/name=inference-server")["items"]
        return {one["metadata"]["name"] for one in found}

    def gone() -> None:
        if left := before & pods():
            raise waits.NotYet(f"{left} still there")

    before = pods()
    body = {"inputs": SAMPLES[0]["pixels"], "model": "digits"}
    headers = {"Authorization": f"Bearer {KEY}"}
    with SteadyLoad(f"{deployed.address()}/predict", body, rate=10, headers=headers) as load:
        load.run_for(2)
        deployed.kubectl("rollout", "restart", "--namespace=inference", "deployment/inference")
        rolled_out(deployed)
        waits.until(gone, what="the old pods to be gone", timeout=300, every=0.5)
        load.run_for(1)
    assert len(load.sent) > 100
    assert [one for one in load.sent if one.status != 200] == []


def test_a_job_answers_every_line_once(deployed: KindCluster, inference_image: str, tmp_path: Path) -> None:
    """Four pods, each its share, into one volume."""
    write_overlay(tmp_path / "batch", K8S / "batch", image=inference_image)
    objects = list(yaml.safe_load_all(kustomize(tmp_path / "batch")))
    if deployed.node.fallback:
        objects = [by_hand for one in objects for by_hand in not_indexed(one)]
    deployed.kubectl("apply", "--server-side", "--filename=-", input=yaml.safe_dump_all(objects))
    jobs = [f"job/{one['metadata']['name']}" for one in of_kind(objects, "Job")]
    deployed.kubectl("wait", "--namespace=inference", "--for=condition=complete", *jobs, "--timeout=400s", timeout=420)
    apply(deployed, tmp_path / "reader", inference_image, "batch/reader")
    deployed.kubectl("wait", "--namespace=inference", "--for=condition=ready", "pod/batch-reader", "--timeout=180s")
    deployed.kubectl("cp", "inference/batch-reader:/results", str(tmp_path / "results"))
    parts = sorted((tmp_path / "results").glob("digits-0000?-of-00004.jsonl"))
    answers = [json.loads(line) for part in parts for line in part.read_text().splitlines()]
    assert [len(part.read_text().splitlines()) for part in parts] == [10] * 4
    assert sorted(one["id"] for one in answers) == list(range(40))
    right = sum(one["predicted_class"] == SAMPLES[one["id"]]["label"] for one in answers)
    assert right >= 36


def not_indexed(job: Manifest) -> list[Manifest]:
    """What an Indexed Job does, as jobs of one pod each: Kubernetes has it from 1.21 on, and the fallback node is older."""
    if job["kind"] != "Job":
        return [job]
    made = []
    for index in range(job["spec"].pop("completions")):
        one = deepcopy(job)
        one["metadata"]["name"] += f"-{index}"
        for later in ("completionMode", "parallelism", "podFailurePolicy"):
            del one["spec"][later]
        one["spec"]["template"]["spec"]["containers"][0]["env"] = [
            {"name": "JOB_COMPLETION_INDEX", "value": str(index)}
        ]
        made.append(one)
    return made


def test_a_server_waits_for_a_model_of_its_own_and_gets_it(
    deployed: KindCluster, inference_image: str, tmp_path: Path, client: httpx.Client
) -> None:
    """The volume is empty at first: the old pod answers until the new one has its model."""
    component = K8S / "components/model-volume"
    apply(deployed, tmp_path / "mine", inference_image, "overlays/local", components=[component])
    apply(deployed, tmp_path / "loader", inference_image, "components/model-volume/loader")
    deployed.kubectl("wait", "--namespace=inference", "--for=condition=ready", "pod/model-loader", "--timeout=180s")

    def waiting() -> None:  # the loader's pod is this server's neighbour, and may be told of first
        pods = get(deployed, "pods", "-lmodel=volume")["items"]
        ready = [one["ready"] for pod in pods for one in pod["status"].get("containerStatuses") or []]
        if ready != [False]:
            raise waits.NotYet(str(ready))

    waits.until(waiting, what="a server without a model", timeout=120, every=0.5)
    assert len(client.get("/models").json()["models"]) > 1
    deployed.kubectl("cp", f"{MODELS}/digits/1", "inference/model-loader:/models/.1")
    deployed.kubectl("exec", "--namespace=inference", "model-loader", "--", "mkdir", "-p", "/models/digits")
    deployed.kubectl("exec", "--namespace=inference", "model-loader", "--", "mv", "/models/.1", "/models/digits/1")
    rolled_out(deployed)

    def probe() -> list[str]:
        try:
            answer = client.get("/models")
        except httpx.HTTPError as error:
            raise waits.NotYet(str(error)) from None
        found = answer.json()["models"] if answer.status_code == 200 else []
        if len(found) != 1:  # the old pod's preStop
            raise waits.NotYet(str(found))
        return [f"{one['name']}:{one['version']}" for one in found]

    assert waits.until(probe, what="the new pod alone", timeout=150, every=0.5) == ["digits:1"]
