"""The Deployer on a cluster: apply, look, change, go back, reach, delete, log in."""

from __future__ import annotations

import hashlib
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from kubernetes import client

from course_lib import shell, waits
from course_lib.cluster import KindCluster, pods
from course_lib.cluster import api as clusters_api
from course_lib.cluster.deployer import Deployer
from course_lib.cluster.events import Event
from course_lib.cluster.refusals import ApiError
from course_lib.errors import CourseError
from tests.cluster.web import web

pytestmark = [pytest.mark.cluster, pytest.mark.docker]


def config(name: str, **data: str) -> dict[str, Any]:
    labels = {"app": name}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": labels}, "data": data}


@pytest.fixture(scope="module")
def running(deployer: Deployer, loaded: tuple[str, str]) -> str:
    """A Deployment that only looks are taken at."""
    deployer.apply([web("running", loaded[0], replicas=2)])
    deployer.wait("running")
    return "running"


# Apply


def test_what_was_created_changed_or_left(deployer: Deployer) -> None:
    def change(*manifests: dict[str, Any]) -> list[str]:
        return [one.change for one in deployer.apply(manifests)]

    assert change(config("one", a="1")) == ["created"]
    assert change(config("one", a="1")) == ["unchanged"]
    assert change(config("one", a="2"), config("two")) == ["changed", "created"]


def test_what_a_manifest_no_longer_says_goes_and_what_others_said_stays(deployer: Deployer) -> None:
    deployer.apply([config("shared", mine="1", old="1")])
    client.CoreV1Api(deployer.api.client).patch_namespaced_config_map(
        "shared", deployer.namespace, {"data": {"theirs": "1"}}, field_manager="somebody"
    )
    deployer.apply([config("shared", mine="1")])
    found = deployer.api.get("v1", "ConfigMap", "shared", deployer.namespace)
    assert found["data"] == {"mine": "1", "theirs": "1"}


def test_a_conflict_names_the_field_and_its_owner(deployer: Deployer) -> None:
    deployer.apply([config("contested", a="1")])
    client.CoreV1Api(deployer.api.client).patch_namespaced_config_map(
        "contested", deployer.namespace, {"data": {"a": "theirs"}}, field_manager="somebody"
    )
    with pytest.raises(ApiError) as told:
        deployer.apply([config("contested", a="2")], force=False)
    assert told.value.status == 409 and ".data.a" in told.value.why and "somebody" in told.value.why
    assert deployer.apply([config("contested", a="2")])[0].change == "changed"


def test_a_dry_run_changes_nothing(deployer: Deployer) -> None:
    assert deployer.apply([config("dry")], dry_run=True)[0].change == "created"
    assert deployer.api.find("v1", "ConfigMap", "dry", deployer.namespace) is None


def test_a_kustomization(deployer: Deployer, tmp_path: Path) -> None:
    (tmp_path / "kustomization.yaml").write_text(
        "configMapGenerator: [{name: built, literals: [a=1]}]\ngeneratorOptions: {disableNameSuffixHash: true}\n"
    )
    assert [(one.kind, one.name, one.change) for one in deployer.apply(tmp_path)] == [("ConfigMap", "built", "created")]


def test_a_field_that_is_wrong_is_named(deployer: Deployer, loaded: tuple[str, str]) -> None:
    wrong = web("wrong", loaded[0], replicas=-1)
    wrong["spec"]["template"]["spec"]["containers"][0]["name"] = "Not A Name"
    with pytest.raises(ApiError) as told:
        deployer.apply([wrong])
    assert told.value.status == 422
    assert {line.partition(":")[0] for line in told.value.why.splitlines()} == {
        "spec.replicas",
        "spec.template.spec.containers[0].name",
    }


def test_a_field_that_the_kind_does_not_have(deployer: Deployer, loaded: tuple[str, str]) -> None:
    wrong = web("wrong", loaded[0])
    wrong["spec"]["replica"] = 2
    with pytest.raises(ApiError, match="has a field that its kind does not have"):
        deployer.apply([wrong])


def test_a_selector_can_not_be_changed(deployer: Deployer, running: str, loaded: tuple[str, str]) -> None:
    other = web("running", loaded[0])
    other["spec"]["selector"]["matchLabels"] = other["spec"]["template"]["metadata"]["labels"] = {"app": "other"}
    with pytest.raises(ApiError, match="can't be changed once it is made"):
        deployer.apply([other])


def test_a_kind_that_the_cluster_does_not_know(deployer: Deployer) -> None:
    with pytest.raises(CourseError, match=r"knows no InferenceService in serving\.kserve\.io/v1"):
        deployer.apply([{"apiVersion": "serving.kserve.io/v1", "kind": "InferenceService", "metadata": {"name": "x"}}])


def test_a_namespace_that_is_not_there(shared_cluster: KindCluster) -> None:
    with pytest.raises(ApiError, match="the namespace of ConfigMap nowhere/one is not there"):
        Deployer("nowhere", kubeconfig=shared_cluster.kubeconfig).apply([config("one")])


# Look


def test_status_and_pods(deployer: Deployer, running: str, loaded: tuple[str, str]) -> None:
    found = deployer.status(running)
    assert (found.wanted, found.updated, found.ready, found.available, found.images) == (2, 2, 2, 2, (loaded[0],))
    assert found.conditions["Available"].startswith("True: MinimumReplicasAvailable")
    each = deployer.pods(running)
    assert len(each) == 2 and all(
        one.ready and one.phase == one.reason == "Running" and one.ip and one.started for one in each
    )
    assert {one.template for one in each} == {deployer.history(running)[-1].replica_set.removeprefix("running-")}


def test_logs_of_a_deployment_are_those_of_each_pod(deployer: Deployer, running: str) -> None:
    names = [one.name for one in deployer.pods(running)]
    said = deployer.logs(running, lines=3)
    assert all(f"==> {name} <==" in said for name in names) and '"GET / HTTP/1.1" 200' in said
    assert len(deployer.logs(names[0], lines=1).splitlines()) == 1


def test_events_are_in_order(deployer: Deployer, running: str) -> None:
    def probe() -> list[Event]:
        noted = deployer.events(deployer.pods(running)[0].name)
        if not {"Scheduled", "Pulled", "Created", "Started"} <= {one.reason for one in noted}:
            raise waits.NotYet(str(noted))
        return noted

    found = waits.until(probe, what="the kubelet's events", timeout=60)
    assert [one.last for one in found] == sorted(one.last for one in found)
    assert next(one for one in found if one.reason == "Started").container == "web"


def test_cpu_and_memory(deployer: Deployer, running: str) -> None:
    def probe() -> dict[str, Any]:
        found = deployer.used(running)
        if len(found) < 2:
            raise waits.NotYet(f"{len(found)} pods measured")
        return found

    for one in waits.until(probe, what="the metrics", timeout=240, every=1).values():
        assert 0 <= one.cpu < 1 and 1e6 < one.memory < 1e9


# Change


def test_replicas_go_up_and_down(deployer: Deployer, loaded: tuple[str, str]) -> None:
    deployer.apply([web("scaled", loaded[0])])
    deployer.wait("scaled")
    for wanted in (3, 0, 1):
        deployer.scale("scaled", wanted)
        assert deployer.wait("scaled").status.available == wanted
    with pytest.raises(ApiError, match="the API server refuses Deployment"):
        deployer.scale("scaled", -1)


def test_an_image_is_changed_and_changed_back(deployer: Deployer, loaded: tuple[str, str]) -> None:
    deployer.apply([web("image", loaded[0])])
    deployer.wait("image")
    deployer.set_image("image", loaded[1])
    found = deployer.wait("image")
    assert (
        found.status.images == (loaded[1],)
        and found.status.revision == 2
        and [one.image for one in found.new] == [loaded[1]]
    )
    assert [one.current for one in deployer.history("image")] == [False, True]
    assert deployer.rollback("image") == 1
    assert deployer.wait("image").status.images == (loaded[0],)
    assert [(one.number, one.images[0], one.current) for one in deployer.history("image")] == [
        (2, loaded[1], False),
        (3, loaded[0], True),
    ]
    assert deployer.rollback("image", to=2) == 2
    assert deployer.wait("image").status.images == (loaded[1],)
    with pytest.raises(CourseError, match="no revision 9"):
        deployer.rollback("image", to=9)


def test_a_rollback_takes_back_what_was_added(deployer: Deployer, loaded: tuple[str, str]) -> None:
    deployer.apply([web("added", loaded[0])])
    deployer.wait("added")
    deployer.apply([web("added", loaded[0], container={"env": [{"name": "NEW", "value": "1"}]})])
    deployer.wait("added")
    deployer.rollback("added")
    deployer.wait("added")
    found = deployer.api.get("apps/v1", "Deployment", "added", deployer.namespace)
    assert "env" not in found["spec"]["template"]["spec"]["containers"][0]


def test_the_wait_is_for_the_change_that_was_just_made(deployer: Deployer, loaded: tuple[str, str]) -> None:
    deployer.apply([web("at-once", loaded[0])])
    deployer.wait("at-once")
    for turn in range(6):  # as fast as can be: the controller has not seen the change when the wait begins
        deployer.set_image("at-once", loaded[(turn + 1) % 2])
        found = deployer.wait("at-once")
        assert {one.image for one in found.new} == {loaded[(turn + 1) % 2]} and all(one.ready for one in found.new)


def test_a_container_has_to_be_named_where_there_are_several(deployer: Deployer, loaded: tuple[str, str]) -> None:
    both = web("several", loaded[0])
    containers = both["spec"]["template"]["spec"]["containers"]
    containers.append({"name": "side", "image": loaded[0], "command": ["sleep", "999"]})
    deployer.apply([both])
    with pytest.raises(CourseError, match="has several containers"):
        deployer.set_image("several", loaded[1])
    with pytest.raises(CourseError, match="has no container none"):
        deployer.set_image("several", loaded[1], container="none")
    deployer.set_image("several", loaded[1], container="side")
    assert deployer.status("several").images == (loaded[0], loaded[1])
    deployer.wait("several")
    with pytest.raises(ApiError):
        deployer.logs("several")
    assert deployer.logs("several", container="web")


def test_a_restart_replaces_the_pods(deployer: Deployer, loaded: tuple[str, str]) -> None:
    deployer.apply([web("restarted", loaded[0])])
    before = {one.name for one in deployer.wait("restarted").new}
    deployer.restart("restarted")
    after = {one.name for one in deployer.wait("restarted").new}
    assert after and not before & after


def test_an_autoscaler(deployer: Deployer, loaded: tuple[str, str]) -> None:
    deployer.apply([web("auto", loaded[0])])
    behavior = {"scaleDown": {"stabilizationWindowSeconds": 15}}
    assert deployer.autoscale("auto", minimum=2, maximum=3, cpu=50, behavior=behavior).change == "created"
    assert deployer.autoscale("auto", minimum=2, maximum=4, cpu=50).change == "changed"

    def probe() -> None:
        found = deployer.autoscaler("auto")
        if found.current < 2:
            raise waits.NotYet(found.words())

    waits.until(probe, what="the autoscaler to ask for its minimum", timeout=240, every=1)
    found = deployer.autoscaler("auto")
    assert (found.minimum, found.maximum, found.targets) == (2, 4, {"cpu": 50})
    deployer.apply([web("auto", loaded[0]) | {"metadata": {"name": "auto"}}])  # it says one replica: taken over again


# Reach


def test_a_forwarded_port(deployer: Deployer, running: str) -> None:
    with deployer.port_forward(running, 8080) as address:
        with httpx.Client(base_url=address, timeout=60, trust_env=False) as http:
            assert all(http.get("/").status_code == 200 for _ in range(20))
        with ThreadPoolExecutor(16) as pool:  # each on a connection of its own
            answers = pool.map(lambda _: httpx.get(address, timeout=60, trust_env=False), range(160))
            assert {one.status_code for one in answers} == {200}
        port = httpx.URL(address).port
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port or 0), 2)


def test_many_bytes_come_through_whole(deployer: Deployer, loaded: tuple[str, str]) -> None:
    code = "import http.server as h, hashlib\nclass H(h.BaseHTTPRequestHandler):\n  def do_GET(self):\n    self.send_response(200); self.end_headers(); self.wfile.write(bytes(20_000_000))\n  def do_POST(self):\n    b = self.rfile.read(int(self.headers['content-length'])); self.send_response(200); self.end_headers(); self.wfile.write(hashlib.sha256(b).hexdigest().encode())\nh.ThreadingHTTPServer(('', 8080), H).serve_forever()"
    deployer.apply([web("bytes", loaded[0], container={"command": ["python3", "-c", code], "readinessProbe": None})])
    deployer.wait("bytes")
    with deployer.port_forward("bytes", 8080) as address:
        waits.until(lambda: _up(address), what="the server", timeout=90)
        assert len(httpx.get(address, timeout=60, trust_env=False).content) == 20_000_000
        sent = bytes(range(256)) * 40_000
        assert httpx.post(address, content=sent, timeout=60, trust_env=False).text == hashlib.sha256(sent).hexdigest()


def _up(address: str) -> None:
    try:
        httpx.post(address, content=b"", timeout=60, trust_env=False)
    except httpx.HTTPError as error:
        raise waits.NotYet(repr(error)) from None


_RESETS = """
import socket, struct, threading
def answer(one, number):
    one.recv(65536)
    if number % 5 == 0:  # as a server does that is killed: RST instead of FIN
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    else:
        one.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\nConnection: close\\r\\n\\r\\nok")
    one.close()
server, number = socket.create_server(("", 8080), backlog=128), 0
while True:
    number += 1
    threading.Thread(target=answer, args=(server.accept()[0], number)).start()
"""


def test_a_connection_that_breaks_does_not_end_the_others(deployer: Deployer, loaded: tuple[str, str]) -> None:
    container = {"command": ["python3", "-c", _RESETS], "readinessProbe": None}
    deployer.apply([web("resets", loaded[0], container=container)])
    deployer.wait("resets")

    def ask(_: int) -> bool:
        try:
            return httpx.get(address, timeout=60, trust_env=False).text == "ok"
        except httpx.RemoteProtocolError:
            return False

    with deployer.port_forward("resets", 8080) as address:
        waits.until(lambda: _up(address), what="the server", timeout=90)
        with ThreadPoolExecutor(8) as pool:
            answered = list(pool.map(ask, range(50)))
    assert answered.count(False) == 10


def test_a_port_that_nobody_listens_on_ends_the_connection(deployer: Deployer, running: str) -> None:
    with deployer.port_forward(running, 9) as address:
        started = time.monotonic()
        with pytest.raises(httpx.HTTPError):
            httpx.get(address, timeout=30, trust_env=False)
        assert time.monotonic() - started < 20


def test_a_pod_that_goes_ends_its_connections(deployer: Deployer, loaded: tuple[str, str]) -> None:
    deployer.apply([web("going", loaded[0])])
    (found,) = deployer.wait("going").new
    with deployer.port_forward(found.name, 8080) as address:
        port = httpx.URL(address).port or 0
        with socket.create_connection(("127.0.0.1", port), 90) as held:
            held.sendall(b"GET / HTTP/1.1\r\n")  # and no more: the server waits for the rest
            time.sleep(2)  # until it has it
            deployer.api.delete("v1", "Pod", found.name, deployer.namespace)
            with suppress(ConnectionResetError):  # where the forward has not read all that was sent
                assert held.recv(1) == b"", "it ends, and does not hang"
        waits.until(lambda: _gone(deployer, found.name), what="the pod to go", timeout=150)
        with pytest.raises(httpx.HTTPError):
            httpx.get(address, timeout=30, trust_env=False)


def _gone(deployer: Deployer, pod: str) -> None:
    if deployer.api.find("v1", "Pod", pod, deployer.namespace):
        raise waits.NotYet("it is there")


def test_nothing_to_forward_to(deployer: Deployer, loaded: tuple[str, str]) -> None:
    deployer.apply([web("never", loaded[0], container={"readinessProbe": {"exec": {"command": ["false"]}}})])
    with pytest.raises(CourseError, match="has no pod that is ready"), deployer.port_forward("never", 8080):
        pass
    with pytest.raises(ApiError, match="there is no Deployment"), deployer.port_forward("none", 8080):
        pass


def test_requests_are_counted_by_pod(deployer: Deployer, shared_cluster: KindCluster, inference_image: str) -> None:
    shared_cluster.load(inference_image)
    probe = {"httpGet": {"path": "/ready", "port": 8080}, "periodSeconds": 1}
    container = {"command": None, "readinessProbe": probe, "resources": {"requests": {"cpu": "50m"}}}
    deployer.apply([web("inference", inference_image, replicas=2, container=container)])
    first, second = (one.name for one in deployer.wait("inference").new)
    for pod, times in ((first, 3), (second, 1)):
        with deployer.port_forward(pod, 8080) as address:
            for _ in range(times):
                httpx.post(f"{address}/predict", json={"inputs": [0] * 64}, timeout=30, trust_env=False)
    found = deployer.counted("inference", "http_requests_total", port=8080, route="/predict")
    assert found == {first: 3, second: 1}
    with pytest.raises(CourseError, match="has no metric requests"):
        deployer.counted("inference", "requests", port=8080)
    with pytest.raises(CourseError, match="does not give its metrics"):
        deployer.counted("inference", "http_requests_total", port=9)


# Delete


def test_deletion_by_label_takes_everything_of_it_and_nothing_else(deployer: Deployer, loaded: tuple[str, str]) -> None:
    marks = {"part-of": "shop"}
    deployer.apply([web("shop", loaded[0], labels=marks), config("keep"), config("shop")])
    labelled = config("shop-settings")
    labelled["metadata"]["labels"] = marks
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "shop", "labels": marks},
        "spec": {"selector": {"app": "shop"}, "ports": [{"port": 80}]},
    }
    deployer.apply([labelled, service])
    deployer.wait("shop")
    deployer.autoscale("shop", maximum=2)
    assert deployer.delete("part-of=shop") == [
        "ConfigMap/shop-settings", "Deployment/shop", "HorizontalPodAutoscaler/shop", "Service/shop",
    ]  # fmt: skip
    assert pods.pods(deployer.api, deployer.namespace, "part-of=shop") == []
    assert deployer.api.find("v1", "ConfigMap", "keep", deployer.namespace)
    assert deployer.delete("part-of=shop") == []


@pytest.mark.parametrize("labels", ["", "  "])
def test_a_deletion_without_a_label_is_refused(deployer: Deployer, labels: str) -> None:
    with pytest.raises(CourseError, match="needs a label"):
        deployer.delete(labels)


def test_a_namespace_with_the_label_goes_too(shared_cluster: KindCluster, deployer: Deployer) -> None:
    own = Deployer(f"{deployer.namespace}-n", kubeconfig=shared_cluster.kubeconfig)
    space = {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": own.namespace, "labels": {"part-of": "shop"}},
    }
    own.apply([space, config("one")])
    assert own.delete("part-of=shop") == [f"Namespace/{own.namespace}"]
    assert own.api.find("v1", "Namespace", own.namespace) is None


def test_what_holds_a_deletion_up_is_named(deployer: Deployer) -> None:
    held = config("held")
    held["metadata"]["finalizers"] = ["example.com/wait"]
    deployer.apply([held])
    with pytest.raises(waits.WaitTimeout, match=r"ConfigMap/held \(finalizers: example.com/wait\)"):
        deployer.delete("app=held", timeout=2)
    deployer.api.patch("v1", "ConfigMap", "held", deployer.namespace, {"metadata": {"finalizers": None}})
    waits.until(lambda: deployer.delete("app=held"), what="it to go", timeout=90)


# Log in


@pytest.fixture
def in_a_pod(deployer: Deployer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a pod finds: a service account's token, the authority, and the API server's address."""
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "app"}}
    role = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "app"}}
    bound = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "app"}}
    role["rules"] = [{"apiGroups": ["", "apps"], "resources": ["deployments", "pods"], "verbs": ["get", "list"]}]  # type: ignore[assignment]
    bound["roleRef"] = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "app"}  # type: ignore[assignment]
    bound["subjects"] = [{"kind": "ServiceAccount", "name": "app", "namespace": deployer.namespace}]  # type: ignore[assignment]
    deployer.apply([account, role, bound])
    core = client.CoreV1Api(deployer.api.client)
    asked = {"spec": {"audiences": [], "expirationSeconds": 3600}}
    issued = core.create_namespaced_service_account_token("app", deployer.namespace, asked)
    (tmp_path / "token").write_text(issued.status.token)
    (tmp_path / "ca.crt").write_bytes(Path(deployer.api.configuration.ssl_ca_cert).read_bytes())
    host = httpx.URL(deployer.api.host)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", host.host)
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(host.port))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setattr(clusters_api, "_SERVICE_ACCOUNT", tmp_path / "token")
    incluster = "kubernetes.config.incluster_config"
    monkeypatch.setattr(f"{incluster}.SERVICE_TOKEN_FILENAME", str(tmp_path / "token"))
    monkeypatch.setattr(f"{incluster}.SERVICE_CERT_FILENAME", str(tmp_path / "ca.crt"))


def test_the_login_of_a_pod_may_what_its_account_may(deployer: Deployer, running: str, in_a_pod: None) -> None:
    inside = Deployer(deployer.namespace)
    assert inside.status(running).available == 2
    with pytest.raises(ApiError) as told:
        inside.scale(running, 3)
    assert told.value.status == 403 and "this user may not do that" in told.value.what
    assert "system:serviceaccount" in told.value.why


def test_a_token_that_is_none(deployer: Deployer, in_a_pod: None, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("none")
    with pytest.raises(ApiError, match="does not accept this login"):
        Deployer(deployer.namespace).status("running")


def test_each_call_shows_its_kubectl_line(deployer: Deployer, running: str) -> None:
    shown: list[str] = []
    shell.show_commands_with(shown.append)
    try:
        deployer.scale(running, 2)
        for _ in range(3):
            deployer.status(running)
    finally:
        shell.show_commands_with(None)
    assert shown[0] == f"kubectl --namespace={deployer.namespace} scale deployment/running --replicas=2"
    looks = f"kubectl --namespace={deployer.namespace} get deployment running"
    assert shown.count(looks) <= 1, "what only looks is shown once, so that a loop does not fill the page"
