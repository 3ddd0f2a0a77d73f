"""What the steps of lab 4.4.5 read back: from the API server, the nodes' containers, inside the pods, and the answers."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

from course_lib import waits
from course_lib.cluster import processes, serving
from course_lib.cluster.cluster import Cluster, Node
from course_lib.cluster.deployer import Deployer
from course_lib.cluster.execute import execute
from course_lib.cluster.kind_cluster import KindCluster
from course_lib.cluster.pods import Pod
from course_lib.cluster.serving import Spread
from course_lib.errors import CourseError
from course_lib.lab.steps import record


def require_nodes_ready(cluster: Cluster) -> list[Node]:
    """Each node is Ready by the API server's word, and, where the course made it, is a running container of this machine's engine.

    Raises:
        CourseError: one is not.
    """
    found = cluster.nodes()
    for node in found:
        image = cluster.runs_as(node)
        if not node.ready:
            raise CourseError(f"node {node.name} is not Ready", why=node.reason)
        record(
            "cluster.node", "kubernetes", node.name, role=node.role, version=node.version, state="Ready", image=image
        )
    wanted = cluster.containers if isinstance(cluster, KindCluster) else ()
    missing = set(wanted) - {node.name for node in found}
    if missing:
        raise CourseError(f"{len(missing)} nodes are not in the cluster", why=", ".join(sorted(missing)))
    record("cluster.nodes-ready", "kubernetes", cluster.name, nodes=len(found))
    return found


def require_rolled_out(deployer: Deployer, name: str, *, image: str) -> list[dict[str, object]]:
    """A Deployment's newest ReplicaSet has all of its pods, ready, of one image; returns who made whom, a row each.

    Raises:
        CourseError: the rollout is not complete, or a pod runs another image.
    """
    status = deployer.status(name)
    current = next((one for one in deployer.history(name) if one.current), None)
    if current is None or not status.seen or not status.wanted == status.ready == status.updated == status.total:
        raise CourseError(f"Deployment {name} is not rolled out", why=status.words(), do="Wait: `deployer.wait(…)`.")
    rows: list[dict[str, object]] = [
        {"object": "Deployment", "name": name, "what it says": status.words()},
        {"object": "ReplicaSet", "name": current.replica_set, "what it says": f"revision {current.number}, {current.ready} ready"},
    ]  # fmt: skip
    for pod in (one for one in deployer.pods(name) if not one.terminating):
        if not _same_image(pod.image, deployer.image(image)):
            raise CourseError(f"pod {pod.name} runs {pod.image}", do=f"The manifests should name {image}.")
        if not pod.name.startswith(f"{current.replica_set}-"):
            raise CourseError(f"pod {pod.name} is of an older ReplicaSet than {current.replica_set}")
        rows.append({"object": "Pod", "name": pod.name, "what it says": pod.words()})
        record("pod.ready", "kubernetes", pod.name, image=pod.image, node=pod.node, address=pod.ip)
    record(
        "deployment.rolled-out", "kubernetes", name, revision=current.number, replica_set=current.replica_set,
        replicas=status.wanted, ready=status.ready, image=image,
    )  # fmt: skip
    return rows


def require_settings_in_use(deployer: Deployer, name: str) -> dict[str, str]:
    """Inside a pod, the ConfigMap's values are variables of the server's process, and the Secret's content is a file.

    Raises:
        CourseError: one is missing there, or is another.
    """
    pod = _ready(deployer, name)[0]
    spec = deployer.api.get("v1", "Pod", pod.name, deployer.namespace)["spec"]
    container = spec["containers"][0]
    maps = [one["configMapRef"]["name"] for one in container.get("envFrom", []) if "configMapRef" in one]
    if not maps:
        raise CourseError(f"pod {pod.name} takes no variables from a ConfigMap")
    wanted = dict(deployer.api.get("v1", "ConfigMap", maps[0], deployer.namespace)["data"])
    process = processes.first(deployer, pod.name)
    said = execute(deployer.api, deployer.namespace, pod.name, "cat", f"/proc/{process}/environ").stdout
    found = dict(line.partition("=")[::2] for line in said.split("\0") if line)
    for key, value in wanted.items():
        if found.get(key) != value:
            raise CourseError(f"{key} is {found.get(key)!r} in pod {pod.name}, and {value!r} in ConfigMap {maps[0]}")
    record("config.in-use", "kubernetes", maps[0], pod=pod.name, values=wanted)
    secret = deployer.api.get("v1", "Secret", serving.KEYS, deployer.namespace)
    volume = next((v["name"] for v in spec["volumes"] if v.get("secret", {}).get("secretName") == serving.KEYS), "")
    place = next((m["mountPath"] for m in container["volumeMounts"] if m["name"] == volume), "")
    if not place:
        raise CourseError(f"pod {pod.name} does not mount the Secret {serving.KEYS}")
    inside = execute(deployer.api, deployer.namespace, pod.name, "cat", f"{place}/keys").stdout
    if inside != base64.b64decode(secret["data"]["keys"]).decode():
        raise CourseError(f"the key in pod {pod.name} is not the one of Secret {serving.KEYS}")
    record("secret.in-use", "kubernetes", serving.KEYS, pod=pod.name, file=f"{place}/keys")
    return wanted


def require_answered_outside(
    deployer: Deployer, name: str, address: str, row: Sequence[float], label: str, *, timeout: float = 60
) -> dict[str, object]:
    """From this machine, through the Service, a prediction comes back right, and a pod that the Service lists counted it.

    Args:
        label: the right answer.
        timeout: seconds until somebody has to answer: the nodes follow a Service and its pods by a moment.

    Raises:
        CourseError: no answer, a wrong one, one without a key, or one that no pod has counted.
    """
    serving.wait_for_service(address, timeout=timeout)
    try:
        serving.predict(address, row, {})
    except CourseError as refused:
        if "answered 401" not in refused.what:
            raise
    else:
        raise CourseError("the server answers without a key", do="Give it API_KEYS_FILE, as the manifests do.")
    before = serving.counted(deployer)
    answer = serving.predict(address, row, serving.headers(deployer))
    after = serving.counted(deployer)
    if str(answer.get("predicted_class")) != label:
        raise CourseError(f"the answer is {answer.get('predicted_class')!r}, and {label!r} is right")
    by = [pod for pod, value in after.items() if value > before.get(pod, 0)]
    if not by:
        raise CourseError(
            "no pod has counted the request", why=f"Whoever answers at {address} is none of {list(after)}."
        )
    listed = _listed(deployer, name)
    record("service.endpoints", "kubernetes", serving.SERVICE, addresses=listed)
    record("service.answered", "http", address, prediction=label, counted_by=by)
    return {"asked at": address, "answer": label, "right": label, "counted by": ", ".join(by)}


def _listed(deployer: Deployer, name: str) -> list[str]:
    """What the Service lists, once it is the ready pods: the list follows them by a moment."""

    def probe() -> list[str]:
        listed, addresses = endpoints(deployer, serving.SERVICE), sorted(pod.ip for pod in _ready(deployer, name))
        if listed != addresses:
            raise waits.NotYet(f"{listed} are listed, and {addresses} are ready")
        return listed

    do = "`kubectl get endpoints` lists who it sends to: the ready pods that have the labels of its selector."
    return waits.until(probe, what=f"Service {serving.SERVICE} to list the ready pods", timeout=90, every=0.2, do=do)


def endpoints(deployer: Deployer, service: str) -> list[str]:
    """The addresses that a Service sends to: of the pods with its labels that are ready."""
    found = deployer.api.find("v1", "Endpoints", service, deployer.namespace) or {}
    return sorted(one["ip"] for subset in found.get("subsets") or [] for one in subset.get("addresses") or [])


def require_replicas(deployer: Deployer, name: str, count: int, *, timeout: float = 400) -> None:
    """Exactly so many pods of a Deployment are there, each ready, and none is on its way out.

    Raises:
        CourseError: it does not come to that.
    """

    def probe() -> None:
        found = deployer.pods(name)
        if len(found) != count or not all(pod.ready and not pod.terminating for pod in found):
            raise waits.NotYet("; ".join(f"{pod.name} {pod.words()}" for pod in found) or "no pods")

    waits.until(probe, what=f"{count} pods of {name}, all ready", timeout=timeout, every=0.3)
    record("replicas.count", "kubernetes", name, replicas=count)


def require_spread(deployer: Deployer, name: str, found: Spread, *, replicas: int) -> None:
    """Requests were answered by every one of so many replicas, and none was lost on the way.

    Raises:
        CourseError: the counts don't add up, or a pod got nothing.
    """
    idle = [pod for pod, number in found.by_pod.items() if number == 0]
    if len(found.by_pod) != replicas or idle:
        raise CourseError(
            f"{len(found.by_pod) - len(idle)} of {replicas} replicas have answered", why=", ".join(idle),
            do="Send more, each on a connection of its own: a kept connection stays with its pod.",
        )  # fmt: skip
    if sum(found.by_pod.values()) != found.sent:
        raise CourseError(f"{found.sent} were sent, and the pods have counted {sum(found.by_pod.values()):.0f}")
    nodes = {pod.node for pod in deployer.pods(name)}
    record("replicas.spread", "http", name, sent=found.sent, by_pod=found.by_pod, nodes=sorted(nodes))


def require_no_traffic(deployer: Deployer, name: str, pod: Pod, *, timeout: float = 180) -> None:
    """A pod is not ready any more, and the Service no longer lists it, while others are.

    Raises:
        CourseError: it does not come to that.
    """

    def probe() -> dict[str, Any]:
        now = next((one for one in deployer.pods(name) if one.name == pod.name), None)
        listed = endpoints(deployer, serving.SERVICE)
        if now is None:
            raise CourseError(f"pod {pod.name} is gone")
        if now.ready or pod.ip in listed:
            raise waits.NotYet(f"{now.words()}; the Service lists {listed}")
        if not listed:
            raise waits.NotYet("the Service lists nobody")
        return {"ready": now.ready, "listed": listed}

    read = waits.until(probe, what=f"{pod.name} to be left out", timeout=timeout, every=0.2)
    record("pod.no-traffic", "kubernetes", pod.name, address=pod.ip, **read)


def require_restarted(deployer: Deployer, name: str, pod: Pod, *, timeout: float = 480) -> Pod:
    """A pod's container was killed by its liveness probe and started again: the count is higher, the event is there, and it is ready.

    Raises:
        CourseError: it does not come to that.
    """

    def probe() -> Pod:
        now = next((one for one in deployer.pods(name) if one.name == pod.name), None)
        if now is None:
            raise CourseError(f"pod {pod.name} is gone, and was not restarted")
        if now.restarts <= pod.restarts or not now.ready:
            raise waits.NotYet(f"{now.words()}, restarted {now.restarts} times")
        return now

    now = waits.until(probe, what=f"{pod.name} to be restarted", timeout=timeout, every=0.3)
    noted = deployer.events(pod.name)
    killed = [one for one in noted if one.reason == "Killing" and "liveness" in one.message.lower()]
    # One refusal is no verdict: the probe may ask a server that has just crashed of itself.
    failed = [one for one in noted if one.reason == "Unhealthy" and one.message.startswith("Liveness")]
    said = killed or (failed if sum(one.count for one in failed) > 1 else [])
    if not said:
        raise CourseError(f"pod {pod.name} was restarted, but not by its liveness probe")
    record("pod.restarted", "kubernetes", pod.name, before=pod.restarts, now=now.restarts, event=said[-1].message)
    return now


def _ready(deployer: Deployer, name: str) -> list[Pod]:
    found = [pod for pod in deployer.pods(name) if pod.ready and not pod.terminating]
    if not found:
        raise CourseError(f"Deployment {name} has no pod that is ready", do="Wait for it: `deployer.wait(…)`.")
    return found


def _same_image(one: str, other: str) -> bool:
    """Whether two references name one image: containerd writes Docker Hub's host in front."""
    return one.removeprefix("docker.io/").removeprefix("library/") == other
