"""A cluster that is there already, as far as none is needed: what manifests become, what a row says, and who does not get in."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest
import yaml

from course_lib import kube_rows, ledger, reaper
from course_lib.cluster import ContextCluster, push
from course_lib.cluster.fit import PORT_LABEL, FitAbroad
from course_lib.errors import CourseError
from course_lib.kube_rows import Place
from course_lib.settings import CHECKOUT, settings
from course_lib.shell import CommandError
from tests.cluster.web import web
from tests.k8s.manifests import of_kind

REGISTRY = "registry.example.com/me"
PUSHED = f"{REGISTRY}/inference-server@sha256:{'0' * 64}"


@pytest.fixture
def fit(tmp_path: Path) -> FitAbroad:
    """One image was pushed."""
    found = FitAbroad(tmp_path / "images.json", "1234abcd")
    found.add("inference-server:local", PUSHED, "arm64")
    return found


# Manifests


def test_an_image_is_called_what_it_was_pushed_as(fit: FitAbroad) -> None:
    before = web(
        "w", "inference-server:local", pod={"initContainers": [{"name": "i", "image": "inference-server:local"}]}
    )
    spec = fit.manifest(before)["spec"]["template"]["spec"]
    assert [spec["containers"][0]["image"], spec["initContainers"][0]["image"]] == [PUSHED, PUSHED]
    assert before["spec"]["template"]["spec"]["containers"][0]["image"] == "inference-server:local", "a copy"
    assert fit.image("inference-server:local") == PUSHED and fit.image("another:1") == "another:1"


def test_another_process_knows_it_too(fit: FitAbroad, tmp_path: Path) -> None:
    assert FitAbroad(tmp_path / "images.json", "1234abcd").image("inference-server:local") == PUSHED
    assert FitAbroad(tmp_path / "none.json", "1234abcd").pushed == {}


@pytest.mark.parametrize("kind", ["Pod", "Job", "CronJob"])
def test_whatever_makes_pods(fit: FitAbroad, kind: str) -> None:
    template: dict[str, Any] = {
        "metadata": {},
        "spec": {"containers": [{"name": "a", "image": "inference-server:local"}]},
    }
    spec: dict[str, Any] = {
        "Pod": template["spec"],
        "Job": {"template": template},
        "CronJob": {"jobTemplate": {"spec": {"template": template}}},
    }[kind]
    found = fit.manifest({"kind": kind, "metadata": {"name": "x"}, "spec": spec})
    assert PUSHED in str(found) and "inference-server:local" not in str(found)


def test_a_node_of_the_images_architecture_is_asked_for_where_there_are_several(fit: FitAbroad) -> None:
    fit.architectures = frozenset({"arm64"})
    one = fit.manifest(web("w", "inference-server:local"))["spec"]["template"]["spec"]
    fit.architectures = frozenset({"arm64", "amd64"})
    both = fit.manifest(web("w", "inference-server:local"))["spec"]["template"]["spec"]
    others = fit.manifest(web("w", "another:1"))["spec"]["template"]["spec"]
    assert "nodeSelector" not in one and "nodeSelector" not in others
    assert both["nodeSelector"] == {"kubernetes.io/arch": "arm64"}


def test_a_port_of_the_nodes_is_not_claimed(fit: FitAbroad) -> None:
    overlay = yaml.safe_load((CHECKOUT / "k8s/overlays/local/service.yaml").read_text())
    found = fit.manifest(overlay)
    assert found["spec"]["type"] == "NodePort" and found["metadata"]["labels"] == {PORT_LABEL: "30080"}
    assert "nodePort" not in found["spec"]["ports"][0] and overlay["spec"]["ports"][0]["nodePort"] == 30080


def test_pods_say_whose_they_are_and_see_their_processes(fit: FitAbroad) -> None:
    template = fit.manifest(web("w", "another:1"))["spec"]["template"]
    assert template["metadata"]["labels"] == {"app": "w", kube_rows.CHECKOUT_LABEL: "1234abcd"}
    assert template["spec"]["shareProcessNamespace"] is True


# Rows


@pytest.mark.parametrize("context", ["kind-a", "arn:aws:eks:eu-west-1:123456789012:cluster/mine", "a name with blanks"])
def test_a_row_leads_back(context: str) -> None:
    place = Place("inference", "1234abcd", context, "/home/me/things in here/config:/etc/kube")
    assert Place.parse(str(place)) == place


def test_what_is_on_a_cluster_that_is_gone_is_gone(fresh_state: Path, tmp_path: Path) -> None:
    """`minikube delete` takes its context out of the kubeconfig."""
    file = tmp_path / "kubeconfig"
    kubeconfig(file, server="https://127.0.0.1:1")
    for name in (Place("n", "1", "deleted", str(file)), Place("n", "1", "here", str(tmp_path / "no-such-file"))):
        row = ledger.write_down("namespace", str(name))
        assert reaper.remove(row)
    assert [row.kind for row in ledger.rows()] == []


def test_what_is_on_a_cluster_that_does_not_answer_is_not_forgotten(fresh_state: Path, tmp_path: Path) -> None:
    file = tmp_path / "kubeconfig"
    kubeconfig(file, server="https://127.0.0.1:1")
    row = ledger.write_down("namespace", str(Place("n", "1", "here", str(file))))
    assert not reaper.remove(row)
    with pytest.raises(CourseError, match="did not say whether namespace n is there") as told:
        reaper.exists(row.kind, row.name)
    assert "course cleanup" in told.value.do and [one.name for one in ledger.rows()] == [row.name]
    ledger.strike(row.kind, row.name)


# Who does not get in


def kubeconfig(file: Path, *, server: str, current: str = "here") -> None:
    contexts = [{"name": name, "context": {"cluster": "c", "user": "u"}} for name in ("here", "there")]
    content = {
        "apiVersion": "v1", "kind": "Config", "current-context": current, "contexts": contexts,
        "clusters": [{"name": "c", "cluster": {"server": server}}], "users": [{"name": "u", "user": {"token": "secret"}}],
    }  # fmt: skip
    file.write_text(yaml.safe_dump(content))


@pytest.fixture
def theirs(own_work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The person's kubeconfig; nobody listens where it leads."""
    file = tmp_path / "theirs"
    kubeconfig(file, server="https://127.0.0.1:1")
    monkeypatch.setenv("KUBECONFIG", str(file))
    return file


def test_a_context_that_is_not_there(theirs: Path) -> None:
    with pytest.raises(CourseError, match="the kubeconfig has no context elsewhere") as told:
        ContextCluster(source="debian", context="elsewhere", registry=REGISTRY).up()
    assert "here, there" in told.value.why and "KUBE_CONTEXT" in told.value.do


def test_no_kubeconfig(theirs: Path) -> None:
    theirs.unlink()
    for context in ("here", ""):
        with pytest.raises(CourseError, match="kubeconfig") as told:
            ContextCluster(source="debian", context=context, registry=REGISTRY).up()
        assert str(theirs) in told.value.why


def test_no_current_context(theirs: Path) -> None:
    kubeconfig(theirs, server="https://127.0.0.1:1", current="")
    with pytest.raises(CourseError, match="no current context") as told:
        ContextCluster(source="debian", registry=REGISTRY).up()
    assert "KUBE_CONTEXT" in told.value.do


def test_no_registry(theirs: Path) -> None:
    with pytest.raises(CourseError, match="no registry is named") as told:
        ContextCluster(source="debian").up()
    assert "KUBE_REGISTRY" in told.value.do


def test_a_cluster_that_does_not_answer(theirs: Path) -> None:
    found = ContextCluster(source="debian", registry=REGISTRY)
    with pytest.raises(CourseError, match="the cluster of context here does not answer") as told:
        found.up()
    assert "refused" in told.value.why and "kubectl --context=here get nodes" in told.value.do
    # What was copied is for this user only, leads to that context alone, and goes.
    copy = yaml.safe_load(found.kubeconfig.read_text())
    assert [one["name"] for one in copy["contexts"]] == ["here"] and "secret" in str(copy)
    assert stat.S_IMODE(found.kubeconfig.stat().st_mode) == 0o600
    kubeconfig(theirs, server="https://127.0.0.1:1", current="there")
    assert ContextCluster(source="debian", registry=REGISTRY).name == "here", "the lab stays where it began"
    found.down()
    assert not found.folder.exists() and not ledger.rows()


def test_several_kubeconfigs_are_named_by_whole_paths(theirs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row is read by a process with another working folder."""
    monkeypatch.chdir(theirs.parent)
    monkeypatch.setenv("KUBECONFIG", f"none{os.pathsep}theirs")
    found = ContextCluster(source="debian", registry=REGISTRY)
    assert found.name == "here"
    assert Place.parse(found._row("n")).files == f"{theirs.parent}/none{os.pathsep}{theirs}"


# What registries say


@pytest.mark.parametrize(
    ("said", "what", "do"),
    [
        ("unauthorized: authentication required", "does not let you push", "docker login"),
        ("no basic auth credentials", "does not let you push", "docker login"),
        ("denied: requested access to the resource is denied", "does not let you push", "docker login"),
        ("name unknown: The repository with name 'x' does not exist in the registry", "no such repository", "create-repository"),
        ('Get "https://r/v2/": http: server gave HTTP response to HTTPS client', "plain HTTP", "insecure-registries"),
        ("tls: failed to verify certificate: x509: certificate signed by unknown authority", "certificate", "certs.d"),
        ("dial tcp: lookup r on 10.0.0.1:53: no such host", "does not answer", "KUBE_REGISTRY"),
        ("something else", "could not be pushed", "words above"),
    ],
)  # fmt: skip
def test_a_registrys_refusal_is_a_sentence(said: str, what: str, do: str) -> None:
    told = push._refused(CommandError(["docker", "image", "push", "r/x"], 1, "", said), "r")
    assert what in told.what and do in told.do and told.why == said


def test_the_overlay_keeps_its_meaning(fit: FitAbroad) -> None:
    """Nothing but what the fit is for is another in the manifests that the lab applies."""
    from course_lib.cluster import manifests

    before = manifests.read(CHECKOUT / "k8s" / "overlays" / "local", kubectl="debian")
    after = [fit.manifest(one) for one in before]
    changed = {one["kind"] for one, other in zip(before, after, strict=True) if one != other}
    assert changed == {"Deployment", "Service"}
    (deployment,) = of_kind(after, "Deployment")
    template = deployment["spec"]["template"]
    template["spec"].pop("shareProcessNamespace")
    template["metadata"]["labels"].pop(kube_rows.CHECKOUT_LABEL)
    template["spec"]["containers"][0]["image"] = "inference-server:local"
    assert deployment in before and settings().checkout_id
