"""Connections from inside pods: what the exercise closed-door tries, where the network carries policies out at all."""

from __future__ import annotations

from course_lib import waits
from course_lib.cluster import Deployer, execute, pods, serving
from course_lib.cluster.api import Object
from course_lib.exercises.cluster_checks import require
from course_lib.lab.exercise import NotYet

NAME = "closed-door"
SERVER = {"app.kubernetes.io/name": "inference-server"}
CLIENT = {"inference-client": "true"}
STRANGER = {"app.kubernetes.io/name": "stranger"}
#: Where the client listens, so that the server could call it.
CLIENT_PORT = 9000
DENY_ALL = {
    "apiVersion": "networking.k8s.io/v1",
    "kind": "NetworkPolicy",
    "metadata": {"name": "deny-all"},
    "spec": {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]},
}
_CONNECT = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=3)"


def start(deployer: Deployer) -> None:
    """A server with its Service, a client with the label, and a stranger; ready when this returns."""
    listens = ["python3", "-m", "http.server", str(CLIENT_PORT), "--directory", "/tmp"]
    ports = [{"name": "http", "port": 80, "targetPort": "http"}]
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": serving.SERVICE},
        "spec": {"selector": SERVER, "ports": ports},
    }
    ready = {"httpGet": {"path": "/ready", "port": "http"}, "periodSeconds": 1, "timeoutSeconds": 3}
    answers = {"ports": [{"name": "http", "containerPort": serving.PORT}], "readinessProbe": ready}
    # A pod is refused where the namespace, a moment old, has no ServiceAccount yet.
    waits.until(lambda: _account(deployer), what="the namespace's ServiceAccount", timeout=120, every=0.2)
    deployer.apply(
        [
            service,
            _pod("server", SERVER, answers),
            _pod("client", CLIENT, {"command": listens}),
            _pod("stranger", STRANGER, {"command": ["sleep", "infinity"]}),
        ]
    )

    def probe() -> None:
        waiting = [f"{one.name}: {one.words()}" for one in pods.pods(deployer.api, NAME) if not one.ready]
        if waiting:
            raise waits.NotYet("; ".join(waiting))

    waits.until(probe, what="the pods that try the door", timeout=240, every=0.2)


def _account(deployer: Deployer) -> None:
    if deployer.api.find("v1", "ServiceAccount", "default", NAME) is None:
        raise waits.NotYet("there is none yet")


def _pod(name: str, labels: dict[str, str], container: Object) -> Object:
    common = {"name": "main", "image": serving.IMAGE, "imagePullPolicy": "IfNotPresent"}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": labels},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": False,
            "containers": [common | container],
        },
    }


def enforced(deployer: Deployer, *, timeout: float = 12) -> bool:
    """Whether this cluster's network enforces policies: a connection that works ends under a deny-all, within seconds."""
    for source, host, port in _tried(deployer):
        if not _becomes(deployer, source, host, port, wanted=True, timeout=90):
            raise NotYet(
                f"without any policy, {source} does not reach {host}:{port}",
                expected="an open door to begin with",
                look="`kubectl get pods --all-namespaces`: this is the cluster's trouble, and none of your policies'",
            )
    deployer.apply([DENY_ALL])
    source, host, port = _tried(deployer)[-1]
    closed = _becomes(deployer, source, host, port, wanted=False, timeout=timeout)
    # One that only failed on a busy machine gets through a moment later.
    return closed and not _becomes(deployer, source, host, port, wanted=True, timeout=15)


def _tried(deployer: Deployer) -> list[tuple[str, str, int]]:
    """(pod, host, port) of the connections that are tried: by name, and by addresses, which need no DNS."""
    at = {one.name: one.ip for one in pods.pods(deployer.api, NAME)}
    return [
        ("client", serving.SERVICE, 80),
        ("stranger", at["server"], serving.PORT),
        ("server", at["client"], CLIENT_PORT),
    ]


def require_tried(deployer: Deployer) -> dict[str, object]:
    """The same three connections under the learner's policies: the first gets through, and the others do not.

    Raises:
        NotYet: one does not do as the policies' text says.
    """
    (client, name, port), *closed = _tried(deployer)
    require(
        _becomes(deployer, client, name, port, wanted=True, timeout=90),
        f"tried: pod {client} does not reach {name}:{port}",
        expected="it does, since your policies say so",
        look="both directions, and DNS",
    )
    for source, host, number in closed:
        require(
            _becomes(deployer, source, host, number, wanted=False, timeout=15),
            f"tried: pod {source} reaches {host}:{number}",
            expected="it does not",
            look="the policy of the pod that is reached, and that of the pod that calls",
        )
    return {"tried": f"client → {name}:{port} gets through; {' and '.join(one for one, *_ in closed)} don't"}


def _becomes(deployer: Deployer, source: str, host: str, port: int, *, wanted: bool, timeout: float) -> bool:
    """Whether a connection from inside a pod gets through, or ceases to, in time."""

    def probe() -> None:
        said = execute.execute(deployer.api, NAME, source, "python3", "-c", _CONNECT, host, str(port), timeout=60)
        if (said.status == 0) != wanted:
            raise waits.NotYet(said.stderr)

    try:
        waits.until(probe, what="a connection", timeout=timeout, every=0.2)
    except waits.WaitTimeout:
        return False
    return True
