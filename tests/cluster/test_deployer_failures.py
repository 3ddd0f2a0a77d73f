"""Rollouts that fail, each for another reason and for real: the wait ends by itself, and says which pod, why, and what to do.

They are all started at once and waited for at once; most of a test's time is the kubelet's own back-off.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pytest

from course_lib import shell, waits
from course_lib.cluster import KindCluster, pods
from course_lib.cluster.deployer import Deployer
from course_lib.cluster.rollout_wait import RolloutFailed
from course_lib.errors import CourseError
from course_lib.waits import WaitTimeout
from tests.cluster.web import get, web

pytestmark = [pytest.mark.cluster, pytest.mark.docker]


@dataclass(frozen=True)
class Case:
    """A Deployment that can't get ready."""

    container: dict[str, Any]
    """What differs from one that can."""
    reason: str
    """Kubernetes' word, or several."""
    says: tuple[str, ...]
    """What the error has to say, wherever."""
    timeout: float = 150
    pod: dict[str, Any] = field(default_factory=dict)


def python(code: str) -> dict[str, Any]:
    return {"command": ["python3", "-u", "-c", code]}


#: What runs, and answers nothing.
_IDLE = python("import time; print('thinking'); time.sleep(9999)")
_SERVE = "import http.server as h; h.HTTPServer(('', 8080), h.SimpleHTTPRequestHandler).serve_forever()"
CASES = {
    "image-not-loaded": Case(
        {"image": "registry.invalid/nothing:1", "imagePullPolicy": "IfNotPresent"}, "ErrImagePull ImagePullBackOff",
        ("is not on the node", "registry.invalid", "course cluster load"),
    ),
    "image-name": Case({"image": "Not A Name"}, "InvalidImageName", ("the image's name is none",)),
    "image-never": Case({"image": "nothing:1", "imagePullPolicy": "Never"}, "ErrImageNeverPull", ("forbids to fetch it",)),
    "exits": Case(
        python("print('no model at /models'); raise SystemExit(3)"), "CrashLoopBackOff Error",
        ("container web", "exit code 3", "no model at /models", "starts, ends, and is started again"),
    ),
    "comes-to-an-end": Case(python("print('done')"), "CrashLoopBackOff Completed", ("comes to an end", "a Job")),
    "no-such-command": Case(
        {"command": ["serve-the-model"]}, "RunContainerError CrashLoopBackOff", ("serve-the-model", "command is not in the image"),
    ),
    "out-of-memory": Case(
        python("data = bytearray(400_000_000); print(len(data))") | {"resources": {"limits": {"memory": "64Mi"}}},
        "CrashLoopBackOff OOMKilled", ("more memory than its limit",),
    ),
    "killed-by-its-liveness-probe": Case(
        _IDLE | {"livenessProbe": {"tcpSocket": {"port": 1}, "periodSeconds": 1, "failureThreshold": 1, "initialDelaySeconds": 5}, "readinessProbe": get("/")},
        "CrashLoopBackOff", ("liveness probe fails", "thinking"),
    ),
    "too-large": Case({"resources": {"requests": {"cpu": "1000"}}}, "Unschedulable", ("Insufficient cpu", "as much left as it requests")),
    "gpu": Case({"resources": {"limits": {"nvidia.com/gpu": 1}}}, "Unschedulable", ("Insufficient nvidia.com/gpu", "no node has a free GPU")),
    "no-configmap": Case(
        {"envFrom": [{"configMapRef": {"name": "settings"}}]}, "CreateContainerConfigError",
        ('configmap "settings" not found', "needs a ConfigMap that is not there"),
    ),
    "no-key": Case(
        {"env": [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "kube-root-ca.crt", "key": "none"}}}]},
        "CreateContainerConfigError", ("has no such key",),
    ),
    "no-volume": Case(
        {"volumeMounts": [{"name": "v", "mountPath": "/key"}]}, "FailedMount", ('secret "model-key" not found', "a volume needs a ConfigMap or a Secret"),
        pod={"volumes": [{"name": "v", "secret": {"secretName": "model-key"}}]},
    ),
    "no-claim": Case(
        {}, "Unschedulable", ("needs a PersistentVolumeClaim that is not there",),
        pod={"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "models"}}]},
    ),
    "no-such-node": Case({}, "Unschedulable", ("no node carries the labels",), pod={"nodeSelector": {"accelerator": "h100"}}),
    "no-account": Case({}, "FailedCreate", ("its ServiceAccount is not there",), pod={"serviceAccountName": "nobody"}),
    "root": Case({"securityContext": {"runAsNonRoot": True, "runAsUser": 0}}, "CreateContainerConfigError", ("runs as root",)),
    "wrong-path": Case({"readinessProbe": get("/no/such/page")}, "Unhealthy", ("does not know", "404")),
}  # fmt: skip
#: These only look as if they might get ready: nothing says that they never will, so the clock decides.
SLOW = {
    "not-ready": Case({"readinessProbe": {"exec": {"command": ["false"]}, "periodSeconds": 1}}, "", ("its readiness probe fails",), 140),
    "wrong-port": Case({"readinessProbe": get("/", port=9999)}, "", ("nothing listens", "refused", "its last log lines"), 140),
}  # fmt: skip


@pytest.fixture(scope="module")
def outcomes(deployer: Deployer, loaded: tuple[str, str]) -> Iterator[dict[str, Future[float]]]:
    """What waiting for each case came to, and after how many seconds."""
    every = CASES | SLOW
    deployer.apply([web(name, loaded[0], container=one.container, pod=one.pod) for name, one in every.items()])

    def wait(name: str, timeout: float) -> float:
        started = time.monotonic()
        deployer.wait(name, timeout=timeout)
        return time.monotonic() - started

    with ThreadPoolExecutor(len(every)) as pool:
        yield {name: pool.submit(wait, name, one.timeout) for name, one in every.items()}


@pytest.mark.parametrize("name", CASES)
def test_a_rollout_that_is_hopeless_ends_the_wait_and_says_why(outcomes: dict[str, Future[float]], name: str) -> None:
    with pytest.raises(RolloutFailed) as told:
        outcomes[name].result()
    error, case = told.value, CASES[name]
    assert error.problems[0].reason in case.reason.split()
    assert all(said in str(error) for said in case.says), str(error)
    assert f"Deployment {name} does not get ready" in error.what and error.do


def test_a_pod_that_asks_for_a_gpu_is_pending_and_the_scheduler_says_why(
    deployer: Deployer, outcomes: dict[str, Future[float]]
) -> None:
    outcomes["gpu"].exception()
    (found,) = deployer.pods("gpu")
    assert (found.phase, found.reason, found.node) == ("Pending", "Unschedulable", "")
    assert deployer.logs(found.name) == ""
    said = [one.message for one in deployer.events(found.name) if one.reason == "FailedScheduling"]
    assert "Insufficient nvidia.com/gpu" in said[-1]


def test_the_log_of_a_run_before(deployer: Deployer, outcomes: dict[str, Future[float]]) -> None:
    outcomes["exits"].exception()

    def probe() -> None:  # between its end and the kubelet's next look, the run before may be one that is cleared away
        if "no model at /models" not in deployer.logs("exits", previous=True):
            raise waits.NotYet("nothing")

    waits.until(probe, what="the log of the run before", timeout=60, every=1)
    (found,) = deployer.pods("exits")
    assert found.restarts >= 1 and "exits-" in found.name

    def by_pod() -> None:
        if deployer.logs(found.name, previous=True) != "no model at /models":
            raise waits.NotYet("nothing")

    waits.until(by_pod, what="the log of the pod's run before", timeout=60, every=1)


def test_no_pods_because_of_a_quota(shared_cluster: KindCluster, deployer: Deployer, loaded: tuple[str, str]) -> None:
    own = Deployer(f"{deployer.namespace}-q", kubeconfig=shared_cluster.kubeconfig)
    space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": own.namespace}}
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "small"},
        "spec": {"hard": {"pods": 0}},
    }

    def counted() -> None:
        if not own.api.get("v1", "ResourceQuota", "small", own.namespace).get("status", {}).get("hard"):
            raise waits.NotYet("not counted yet")

    own.apply([quota, space])
    try:
        waits.until(counted, what="the quota to be known", timeout=60, every=0.3)
        own.apply([web("web", loaded[0])])
        with pytest.raises(RolloutFailed) as told:
            own.wait("web", timeout=90)
        assert "quota leaves no room" in told.value.what and "exceeded quota: small" in told.value.why
    finally:
        own.api.delete("v1", "Namespace", own.namespace)


def test_a_slow_start_is_no_failure(deployer: Deployer, loaded: tuple[str, str]) -> None:
    deployer.apply([web("slow", loaded[0], container=python(f"import time; time.sleep(40)\n{_SERVE}"))])
    assert deployer.wait("slow", timeout=120).done


def test_a_broken_update_leaves_the_old_pods_and_a_rollback_ends_it(
    deployer: Deployer, loaded: tuple[str, str]
) -> None:
    deployer.apply([web("update", loaded[0], replicas=2)])
    deployer.wait("update")
    deployer.set_image("update", "registry.invalid/nothing:2")
    with pytest.raises(RolloutFailed, match="is not on the node"):
        deployer.wait("update")
    assert deployer.status("update").available >= 1
    deployer.rollback("update")
    deployer.wait("update")
    assert {one.image for one in deployer.pods("update") if not one.terminating} == {loaded[0]}


@pytest.mark.parametrize("name", SLOW)
def test_what_may_only_be_slow_is_waited_for_and_explained(outcomes: dict[str, Future[float]], name: str) -> None:
    # Not before the others: their time is not waited for twice.
    with pytest.raises(WaitTimeout) as told:
        outcomes[name].result()
    assert all(said in str(told.value) for said in SLOW[name].says), str(told.value)


def test_a_wait_outlives_a_restart_of_the_api_server(
    shared_cluster: KindCluster, deployer: Deployer, loaded: tuple[str, str]
) -> None:
    node = shared_cluster.containers[0]
    find = ["docker", "exec", node, "pgrep", "--oldest", "kube-apiserver"]
    deployer.apply([web("through", loaded[0], container=python(f"import time; time.sleep(40)\n{_SERVE}"))])
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(deployer.wait, "through", timeout=240)
        time.sleep(3)
        before = shell.run(find, show=False).output
        shell.run(["docker", "exec", node, "kill", "-9", before], show=False)
        assert not waiting.done(), "it is killed during the wait"
        assert waiting.result().done
    assert shell.run(find, show=False).output != before


def test_a_deployment_that_is_not_there(deployer: Deployer) -> None:
    with pytest.raises(CourseError, match=f"there is no Deployment {deployer.namespace}/none"):
        deployer.wait("none")


def test_what_comes_a_little_later_is_waited_for(deployer: Deployer, loaded: tuple[str, str]) -> None:
    deployer.apply([web("early", loaded[0], container={"envFrom": [{"configMapRef": {"name": "late"}}]})])
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(deployer.wait, "early")
        while "CreateContainerConfigError" not in {
            one.reason for one in pods.pods(deployer.api, deployer.namespace, "app=early")
        }:
            time.sleep(0.2)
        deployer.apply([{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "late"}}])
        assert waiting.result().done
