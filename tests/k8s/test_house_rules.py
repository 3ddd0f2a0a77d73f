"""The house's rules hold for every folder; and each rule is broken here on purpose, so that all of them are known to bite."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kubernetes.utils.quantity import parse_quantity

from tests.k8s import rules
from tests.k8s.manifests import FOLDERS, K8S, Manifest, build, containers, of_kind

Spoil = Callable[[list[Manifest]], Any]


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_folder_keeps_the_rules(folder: str, tmp_path: Path) -> None:
    assert rules.broken(build(folder, tmp_path)) == []


def one(objects: list[Manifest], kind: str) -> Manifest:
    """The first of a kind, and what is below `spec` where that is what one wants."""
    return of_kind(objects, kind)[0]


def pod(objects: list[Manifest]) -> Manifest:
    found: Manifest = one(objects, "Deployment")["spec"]["template"]["spec"]
    return found


def server(objects: list[Manifest]) -> Manifest:
    found: Manifest = pod(objects)["containers"][0]
    return found


def setting(objects: list[Manifest], name: str, value: str) -> None:
    one(objects, "ConfigMap")["data"][name] = value


#: (rule, what is said of it, what breaks it); in `local` where no other folder is named.
BREAKS: list[tuple[str, str, Spoil]] = [
    ("bounded", "no cpu", lambda o: server(o)["resources"]["limits"].pop("cpu")),
    ("bounded", "no memory", lambda o: server(o)["resources"].pop("requests")),
    ("bounded", "more memory than", lambda o: server(o)["resources"]["requests"].update(memory="1Gi")),
    ("closed", "may be root", lambda o: pod(o)["securityContext"].update(runAsUser=0)),
    ("closed", "may be root", lambda o: pod(o)["securityContext"].pop("runAsNonRoot")),
    ("closed", "system call", lambda o: pod(o)["securityContext"].pop("seccompProfile")),
    ("closed", "namespace of the node", lambda o: pod(o).update(hostNetwork=True)),
    ("closed", "folder of the node", lambda o: pod(o)["volumes"].append({"name": "x", "hostPath": {"path": "/"}})),
    ("closed", "become more", lambda o: server(o)["securityContext"].pop("allowPrivilegeEscalation")),
    ("closed", "capabilities", lambda o: server(o)["securityContext"].update(capabilities={"drop": ["NET_RAW"]})),
    ("closed", "write into", lambda o: server(o)["securityContext"].pop("readOnlyRootFilesystem")),
    ("pinned", "another one", lambda o: server(o).update(image="inference-server:latest")),
    ("pinned", "another one", lambda o: server(o).update(image="inference-server")),
    ("pinned", "another one", lambda o: server(o).update(image="localhost:5000/inference-server")),
    ("pinned", "registry", lambda o: server(o).update(imagePullPolicy="Always")),
    ("pinned", "registry", lambda o: server(o).pop("imagePullPolicy")),
    ("probed", "not asked", lambda o: server(o).pop("startupProbe")),
    ("probed", "killed while", lambda o: server(o)["livenessProbe"]["httpGet"].update(path="/ready")),
    ("probed", "gets requests", lambda o: server(o)["readinessProbe"]["httpGet"].update(path="/health")),
    ("probed", "before it is spared", lambda o: server(o)["livenessProbe"].update(periodSeconds=1)),
    ("drained", "have heard", lambda o: server(o).pop("lifecycle")),
    ("drained", "killed while", lambda o: pod(o).update(terminationGracePeriodSeconds=28)),
    ("drained", "killed while", lambda o: setting(o, "DRAIN_SECONDS", "22")),
    ("drained", "killed while", lambda o: setting(o, "SHUTDOWN_DELAY_SECONDS", "5")),
    ("drained", "keeps its connection", lambda o: setting(o, "SHUTDOWN_DELAY_SECONDS", "0")),
    ("drained", "longer than", lambda o: setting(o, "REQUEST_TIMEOUT_SECONDS", "21")),
    ("evictable", "no node", lambda o: one(o, "PodDisruptionBudget")["spec"].update(minAvailable=1)),
    ("evictable", "no node", lambda o: one(o, "PodDisruptionBudget")["spec"].update(minAvailable="50%")),
    ("evictable", "no node", lambda o: one(o, "PodDisruptionBudget")["spec"].update(maxUnavailable=0)),
    (
        "evictable",
        "protects nothing",
        lambda o: one(o, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"].update(app="x"),
    ),
    (
        "scaled",
        "scales nothing",
        lambda o: one(o, "HorizontalPodAutoscaler")["spec"]["scaleTargetRef"].update(name="x"),
    ),
    ("scaled", "set", lambda o: one(o, "Deployment")["spec"].update(replicas=2)),
    ("scaled", "nowhere", lambda o: one(o, "HorizontalPodAutoscaler")["spec"].update(minReplicas=3)),
    ("scaled", "nobody made", lambda o: server(o)["resources"]["requests"].pop("cpu")),
    ("scaled", "before the target", lambda o: server(o)["resources"]["limits"].update(cpu="140m")),
    ("scaled", "before the target", lambda o: server(o)["resources"]["limits"].update(memory="450Mi")),
    ("connected", "find again", lambda o: one(o, "Deployment")["spec"]["template"]["metadata"].update(labels={})),
    ("connected", "leads to no pod", lambda o: one(o, "Service")["spec"]["selector"].update(app="x")),
    ("connected", "no port", lambda o: one(o, "Service")["spec"]["ports"][0].update(targetPort="web")),
    (
        "connected",
        "opens nothing",
        lambda o: of_kind(o, "NetworkPolicy")[1]["spec"]["podSelector"]["matchLabels"].update(app="x"),
    ),
    ("connected", "differ", lambda o: server(o)["volumeMounts"].pop()),
    ("connected", "no ConfigMap", lambda o: server(o)["envFrom"][0]["configMapRef"].update(name="settings")),
    ("replaceable", "goes before", lambda o: one(o, "Deployment")["spec"].pop("strategy")),
    ("replaceable", "waits for", lambda o: server(o)["resources"]["limits"].update({"nvidia.com/gpu": 1})),
    ("tokenless", "holds", lambda o: pod(o).pop("automountServiceAccountToken")),
    ("tokenless", "gives", lambda o: one(o, "ServiceAccount").pop("automountServiceAccountToken")),
    (
        "keyless",
        "committed",
        lambda o: o.append({"kind": "Secret", "metadata": {"name": "keys"}, "data": {"keys": "c2VjcmV0"}}),
    ),
    ("keyless", "API_KEYS is no", lambda o: server(o)["env"].append({"name": "API_KEYS", "value": "a-real-key"})),
    ("keyless", "TOKEN is no", lambda o: setting(o, "HF_TOKEN", "hf_0")),
]


@pytest.mark.parametrize(("rule", "says", "spoil"), BREAKS, ids=lambda value: value if isinstance(value, str) else "")
def test_a_rule_that_is_broken_says_so(rule: str, says: str, spoil: Spoil, tmp_path: Path) -> None:
    objects = build("overlays/local", tmp_path)
    spoil(objects)
    assert any(says in said for said in getattr(rules, rule)(objects))


def test_a_door_that_cuts_its_requests_is_found(tmp_path: Path) -> None:
    """nginx takes SIGTERM for "at once"."""
    objects = build("strategies/door", tmp_path)
    door = next(found for who, found in containers(objects) if "door" in who)
    door["lifecycle"]["preStop"]["exec"]["command"] = ["sleep", "5"]
    assert list(rules.drained(objects)) == ["Deployment door: cuts what it has begun"]


def test_every_rule_was_broken() -> None:
    assert {rule for rule, _, _ in BREAKS} == {rule.__name__ for rule in rules.RULES}


def test_a_job_gets_none_of_the_servers_requests(tmp_path: Path) -> None:
    """Its pods would answer nothing; so they carry another name."""
    chosen = one(build("overlays/local", tmp_path), "Service")["spec"]["selector"]
    for folder in ("batch", "components/model-volume/loader"):
        for kind in ("Job", "Pod"):
            for found in of_kind(build(folder, tmp_path), kind):
                labels = (found["spec"]["template"] if kind == "Job" else found)["metadata"]["labels"]
                assert not chosen.items() <= labels.items()


def test_the_job_deals_its_lines_to_as_many_pods_as_it_makes(tmp_path: Path) -> None:
    job = one(build("batch", tmp_path), "Job")
    arguments = job["spec"]["template"]["spec"]["containers"][0]["args"]
    assert int(arguments[arguments.index("--shards") + 1]) == job["spec"]["completions"]
    assert job["spec"]["completionMode"] == "Indexed"


def test_what_the_local_overlay_asks_for_fits_on_two_cores(tmp_path: Path) -> None:
    """Its largest count, and one more during a rollout, beside what a cluster of kind asks for itself (1.05 CPU)."""
    objects = build("overlays/local", tmp_path)
    largest = one(objects, "HorizontalPodAutoscaler")["spec"]["maxReplicas"]
    surge = one(objects, "Deployment")["spec"]["strategy"]["rollingUpdate"]["maxSurge"]
    ((_, container),) = containers(of_kind(objects, "Deployment"))
    cpus = {part: parse_quantity(container["resources"][part]["cpu"]) for part in ("requests", "limits")}
    assert float((largest + surge) * cpus["requests"]) + 1.05 <= 2
    assert float(largest * cpus["limits"]) < 2  # under full load something is left for the cluster


def test_each_kind_of_service_is_where_it_belongs(tmp_path: Path) -> None:
    kinds = {folder: one(build(f"overlays/{folder}", tmp_path), "Service") for folder in ("local", "gpu", "cloud")}
    assert {folder: found["spec"]["type"] for folder, found in kinds.items()} == {
        "local": "NodePort",
        "gpu": "NodePort",
        "cloud": "LoadBalancer",
    }
    assert kinds["local"]["spec"]["ports"][0]["nodePort"] == 30080


def test_a_server_on_a_gpu_asks_for_a_whole_one_where_one_is(tmp_path: Path) -> None:
    objects = build("overlays/gpu", tmp_path)
    assert server(objects)["resources"]["limits"]["nvidia.com/gpu"] == "1"
    (term,) = pod(objects)["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"][
        "nodeSelectorTerms"
    ]
    assert term["matchExpressions"] == [{"key": "nvidia.com/gpu.present", "operator": "In", "values": ["true"]}]
    assert {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"} in pod(objects)["tolerations"]
    assert not of_kind(objects, "HorizontalPodAutoscaler")


def test_the_namespace_takes_restricted_pods_only(tmp_path: Path) -> None:
    labels = one(build("overlays/local", tmp_path), "Namespace")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == labels["pod-security.kubernetes.io/warn"] == "restricted"


def test_no_file_holds_a_key() -> None:
    for file in K8S.rglob("*"):
        assert not (file.is_file() and file.suffix in {".key", ".pem", ".crt"}), file
