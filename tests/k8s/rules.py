"""The house's rules for manifests, beyond what a schema knows: each looks at a folder's objects and says what breaks it."""

from __future__ import annotations

import re
from collections.abc import Iterator

from kubernetes.utils.quantity import parse_quantity

from tests.k8s.manifests import Manifest, containers, of_kind, pods

#: What NVIDIA's plugin can't do without: it writes into folders of the kubelet and of containerd, as root.
NEEDS_MORE = {"DaemonSet nvidia-device-plugin"}


def bounded(objects: list[Manifest]) -> Iterator[str]:
    """Every container has requests and limits for CPU and memory, and asks for no more than it may have."""
    for who, container in containers(objects):
        given = container.get("resources", {})
        for what in ("cpu", "memory"):
            request, limit = (given.get(part, {}).get(what) for part in ("requests", "limits"))
            if request is None or limit is None:
                yield f"{who}: no {what} request or limit"
            elif parse_quantity(request) > parse_quantity(limit):
                yield f"{who}: asks for more {what} than its limit"


def closed(objects: list[Manifest]) -> Iterator[str]:
    """What Pod Security calls `restricted`, and a read-only root: no root, no capability, nothing of the node's."""
    for who, pod in pods(objects):
        if who in NEEDS_MORE:
            continue
        spec = pod["spec"]
        whole = spec.get("securityContext", {})
        if whole.get("runAsNonRoot") is not True or not whole.get("runAsUser"):
            yield f"{who}: may be root"
        if whole.get("seccompProfile", {}).get("type") != "RuntimeDefault":
            yield f"{who}: every system call is open"
        if any(spec.get(key) for key in ("hostNetwork", "hostPID", "hostIPC")):
            yield f"{who}: is in a namespace of the node"
        if any("hostPath" in volume for volume in spec.get("volumes", [])):
            yield f"{who}: mounts a folder of the node"
    for who, container in containers(objects):
        own = container.get("securityContext", {})
        if own.get("privileged") or own.get("allowPrivilegeEscalation") is not False:
            yield f"{who}: may become more than it is"
        if own.get("capabilities") != {"drop": ["ALL"]}:
            yield f"{who}: keeps capabilities"
        if own.get("readOnlyRootFilesystem") is not True and who.split(",")[0] not in NEEDS_MORE:
            yield f"{who}: can write into its own root"


def pinned(objects: list[Manifest]) -> Iterator[str]:
    """An image is one image: a tag other than `latest`, or a digest; one that was loaded is not asked for elsewhere."""
    for who, container in containers(objects):
        image = container["image"]
        if not re.fullmatch(r"[\w./-]+(:(?!latest$)(?!set-by-an-overlay$)[\w.-]+|@sha256:[0-9a-f]{64})", image):
            yield f"{who}: {image} may be another one tomorrow"
        if container.get("imagePullPolicy") not in ("IfNotPresent", "Never"):
            yield f"{who}: asks a registry at each start"


def probed(objects: list[Manifest]) -> Iterator[str]:
    """A server is asked three ways, and killed by none of the questions that only keep work away from it."""
    for who, container in containers(of_kind(objects, "Deployment")):
        probes = [container.get(f"{kind}Probe") for kind in ("startup", "readiness", "liveness")]
        if not all(probes):
            yield f"{who}: not asked whether it is up, ready and alive"
            continue
        startup, readiness, liveness = probes
        if "/ready" in (startup["httpGet"]["path"], liveness["httpGet"]["path"]):
            yield f"{who}: killed while it loads or drains"
        if readiness["httpGet"]["path"] != "/ready":
            yield f"{who}: gets requests while it loads or drains"
        patience = [one["periodSeconds"] * one["failureThreshold"] for one in (readiness, liveness)]
        if patience[0] >= patience[1]:
            yield f"{who}: killed before it is spared"


def drained(objects: list[Manifest]) -> Iterator[str]:
    """The time to be forgotten, the drain and the longest answer fit into what the kubelet waits."""
    maps = {one["metadata"]["name"]: one["data"] for one in of_kind(objects, "ConfigMap")}
    for who, pod in pods(of_kind(objects, "Deployment")):
        container = pod["spec"]["containers"][0]
        settings: dict[str, str] = {}
        for source in container.get("envFrom", []):
            settings |= maps.get(source["configMapRef"]["name"], {})
        command = container.get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command", [])
        sleep = re.match(r"(?:sh -c )?sleep ([\d.]+)(?:;|$)", " ".join(command))
        if sleep is None or float(sleep[1]) < 2:
            yield f"{who}: refuses requests before the nodes have heard that it goes"
            continue
        if "nginx" in container["image"]:  # it has no settings of the server's: its own word for a drain is `quit`
            if "-s quit" not in " ".join(command):
                yield f"{who}: cuts what it has begun"
            continue
        delay, drain, answer = (
            float(settings.get(name, default))
            for name, default in (("SHUTDOWN_DELAY_SECONDS", 0), ("DRAIN_SECONDS", 8), ("REQUEST_TIMEOUT_SECONDS", 300))
        )
        if not delay:
            yield f"{who}: refuses the next request of a client that keeps its connection"
        if float(sleep[1]) + delay + drain >= pod["spec"].get("terminationGracePeriodSeconds", 30):
            yield f"{who}: killed while it drains"
        if answer > drain:
            yield f"{who}: an answer may take longer than the drain waits for it"


def evictable(objects: list[Manifest]) -> Iterator[str]:
    """`kubectl drain` comes to an end with as few replicas as there may be."""
    for budget in of_kind(objects, "PodDisruptionBudget"):
        spec, deployment = budget["spec"], _matched(objects, budget["spec"]["selector"]["matchLabels"])
        if deployment is None:
            yield f"{budget['metadata']['name']}: protects nothing"
            continue
        fewest = _fewest(objects, deployment)
        allowed = fewest - _share(spec["minAvailable"], fewest) if "minAvailable" in spec else spec["maxUnavailable"]
        if not _share(allowed, fewest):
            yield f"{budget['metadata']['name']}: with {fewest} replicas no node can be drained"


def scaled(objects: list[Manifest]) -> Iterator[str]:
    """The autoscaler has something to scale, a number to count in percent of, and the count to itself."""
    for scaler in of_kind(objects, "HorizontalPodAutoscaler"):
        spec, name = scaler["spec"], scaler["metadata"]["name"]
        target = spec["scaleTargetRef"]
        found = [one for one in of_kind(objects, target["kind"]) if one["metadata"]["name"] == target["name"]]
        if not found:
            yield f"{name}: scales nothing"
            continue
        if "replicas" in found[0]["spec"]:
            yield f"{name}: each apply sets the count back"
        if not 1 <= spec.get("minReplicas", 1) < spec["maxReplicas"]:
            yield f"{name}: nowhere to scale to"
        given = [one["resources"] for _, one in containers(found)]
        for metric in spec["metrics"]:
            what, wanted = metric["resource"]["name"], metric["resource"]["target"]
            requests = [parse_quantity(one["requests"].get(what, 0)) for one in given]
            limits = [parse_quantity(one["limits"].get(what, "1E")) for one in given]
            if wanted["type"] == "Utilization":
                if not all(requests):
                    yield f"{name}: percent of a {what} request that nobody made"
                elif sum(requests) * wanted["averageUtilization"] / 100 >= sum(limits):
                    yield f"{name}: the {what} limit is reached before the target"
            elif parse_quantity(wanted["averageValue"]) >= sum(limits):
                yield f"{name}: the {what} limit is reached before the target"


def connected(objects: list[Manifest]) -> Iterator[str]:
    """What names something finds it: selectors their pods, ports their names, mounts their volumes, pods their settings."""
    for deployment in of_kind(objects, "Deployment", "DaemonSet"):
        if _matched([deployment], deployment["spec"]["selector"]["matchLabels"]) is None:
            yield f"{deployment['metadata']['name']}: makes pods that it does not find again"
    for service in of_kind(objects, "Service"):
        name, chosen = service["metadata"]["name"], service["spec"].get("selector")
        target = _matched(objects, chosen) if chosen else None
        if target is None:
            yield f"Service {name}: leads to no pod"
            continue
        ports = {port["name"] for _, one in containers([target]) for port in one.get("ports", [])}
        for port in service["spec"]["ports"]:
            if port["targetPort"] not in ports:
                yield f"Service {name}: no port {port['targetPort']}"
    for policy in of_kind(objects, "NetworkPolicy"):
        if (labels := policy["spec"]["podSelector"].get("matchLabels")) and _matched(objects, labels) is None:
            yield f"NetworkPolicy {policy['metadata']['name']}: opens nothing"
    maps = {one["metadata"]["name"] for one in of_kind(objects, "ConfigMap")}
    for who, pod in pods(objects):
        volumes = {volume["name"]: volume for volume in pod["spec"].get("volumes", [])}
        used = {mount["name"] for _, one in _own(pod) for mount in one.get("volumeMounts", [])}
        if used != set(volumes):
            yield f"{who}: mounts and volumes differ: {sorted(used ^ set(volumes))}"
        wanted = {volume["configMap"]["name"] for volume in volumes.values() if "configMap" in volume}
        wanted |= {source["configMapRef"]["name"] for _, one in _own(pod) for source in one.get("envFrom", [])}
        if missing := wanted - maps:
            yield f"{who}: no ConfigMap {sorted(missing)}"


def replaceable(objects: list[Manifest]) -> Iterator[str]:
    """A rollout loses no replica, and does not wait for a GPU that the old pod holds."""
    for deployment in of_kind(objects, "Deployment"):
        name, strategy = deployment["metadata"]["name"], deployment["spec"].get("strategy", {})
        rolling = strategy.get("rollingUpdate", {})
        gpu = any("nvidia.com/gpu" in one["resources"]["limits"] for _, one in containers([deployment]))
        if gpu and strategy.get("type") != "Recreate" and not rolling.get("maxUnavailable"):
            yield f"{name}: the new pod waits for the old one's GPU, and the old one for the new pod"
        if not gpu and (rolling.get("maxUnavailable") != 0 or not rolling.get("maxSurge")):
            yield f"{name}: an old pod goes before a new one is ready"


def tokenless(objects: list[Manifest]) -> Iterator[str]:
    """No pod gets a token of the cluster's API."""
    for who, pod in pods(objects):
        if pod["spec"].get("automountServiceAccountToken") is not False:
            yield f"{who}: holds a token"
    for account in of_kind(objects, "ServiceAccount"):
        if account.get("automountServiceAccountToken") is not False:
            yield f"ServiceAccount {account['metadata']['name']}: gives its token to every pod"


def keyless(objects: list[Manifest]) -> Iterator[str]:
    """No secret stands in a file: neither as a Secret, nor as a variable of a pod."""
    for one in of_kind(objects, "Secret"):
        yield f"Secret {one['metadata']['name']}: its content is committed"
    given = [(who, env["name"], env.get("value", "")) for who, one in containers(objects) for env in one.get("env", [])]
    for one in of_kind(objects, "ConfigMap"):
        given += [(f"ConfigMap {one['metadata']['name']}", key, value) for key, value in one["data"].items()]
    for who, key, value in given:
        in_a_file = key.endswith("_FILE") and value.startswith("/run/secrets/")
        if re.search(r"(^|_)(KEYS?|TOKEN|PASSWORD|SECRET|CREDENTIALS?)(_|$)", key) and not in_a_file:
            yield f"{who}: {key} is no file of a mounted Secret"


RULES = (
    bounded, closed, pinned, probed, drained, evictable, scaled, connected, replaceable, tokenless, keyless,
)  # fmt: skip


def broken(objects: list[Manifest]) -> list[str]:
    """What breaks any rule."""
    return [said for rule in RULES for said in rule(objects)]


def _own(pod: Manifest) -> Iterator[tuple[str, Manifest]]:
    yield from containers([{"kind": "Pod", "metadata": {"name": ""}, "spec": pod["spec"]}])


def _matched(objects: list[Manifest], labels: dict[str, str]) -> Manifest | None:
    """The one object whose pods carry all of these labels."""
    found = [
        one
        for one in of_kind(objects, "Deployment", "DaemonSet", "Job", "Pod")
        for _, pod in pods([one])
        if labels.items() <= pod["metadata"].get("labels", {}).items()
    ]
    return found[0] if len(found) == 1 else None


def _fewest(objects: list[Manifest], deployment: Manifest) -> int:
    """How few replicas there can be, outages aside."""
    for scaler in of_kind(objects, "HorizontalPodAutoscaler"):
        if scaler["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]:
            return int(scaler["spec"].get("minReplicas", 1))
    return int(deployment["spec"].get("replicas", 1))


def _share(value: int | str, of: int) -> int:
    """A number, or percent of one, rounded up as Kubernetes does for budgets."""
    return -(-int(value.removesuffix("%")) * of // 100) if isinstance(value, str) else value
