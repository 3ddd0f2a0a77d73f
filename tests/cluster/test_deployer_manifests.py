"""Reading manifests: files, folders, kustomizations, lists; and what is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from course_lib import shell
from course_lib.cluster import manifests
from course_lib.errors import CourseError

CONFIG = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {}\n"
SPACE = "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: lab\n"


def test_what_others_live_in_goes_first(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(CONFIG.format("one") + "---\n" + CONFIG.format("two") + "---\n")
    (tmp_path / "b.yml").write_text(SPACE)
    (tmp_path / "notes.txt").write_text("not: {read")
    found = [one["metadata"]["name"] for one in manifests.read(tmp_path)]
    assert found == ["lab", "one", "two"]
    assert manifests.argument(tmp_path).startswith("--filename=")


def test_a_kustomization_is_built(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(CONFIG.format("one"))
    (tmp_path / "kustomization.yaml").write_text("resources: [config.yaml]\nnamePrefix: my-\n")
    assert [one["metadata"]["name"] for one in manifests.read(tmp_path, kubectl="debian")] == ["my-one"]
    assert manifests.argument(tmp_path).startswith("--kustomize=")


def test_a_kustomization_that_can_not_be_built_says_why(tmp_path: Path) -> None:
    (tmp_path / "kustomization.yaml").write_text("resources: [missing.yaml]\n")
    with pytest.raises(CourseError) as told:
        manifests.read(tmp_path, kubectl="debian")
    assert "missing.yaml" in told.value.why and not isinstance(told.value, shell.CommandError)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("a: [", "can't be read"),
        ("", "holds no objects"),
        ("just words", "is no Kubernetes object"),
        ("kind: Pod\nmetadata: {name: x}\n", "is no Kubernetes object"),
        ("apiVersion: v1\nkind: Pod\nmetadata: {}\n", "is no Kubernetes object"),
    ],
)
def test_a_file_that_is_no_manifest(tmp_path: Path, text: str, what: str) -> None:
    file = tmp_path / "web.yaml"
    file.write_text(text)
    with pytest.raises(CourseError, match=what):
        manifests.read(file)


def test_a_path_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(CourseError, match="is not there"):
        manifests.read(tmp_path / "none")


def test_objects_that_are_none() -> None:
    with pytest.raises(CourseError, match="the list holds no objects"):
        manifests.read([])


def test_amounts_become_strings_and_ports_get_their_protocol() -> None:
    resources = {"limits": {"nvidia.com/gpu": 1, "cpu": 0.5}, "requests": {"memory": "1Gi"}}
    pod = {"kind": "Pod", "spec": {"priority": 3, "containers": [{"name": "a", "resources": resources}]}}
    given = str(pod)
    found = manifests.spelled_out(pod)["spec"]
    assert found["containers"][0]["resources"] == {
        "limits": {"nvidia.com/gpu": "1", "cpu": "0.5"},
        "requests": {"memory": "1Gi"},
    }
    assert found["priority"] == 3 and str(pod) == given, "what was given is not changed"
    quota = {"kind": "ResourceQuota", "spec": {"hard": {"pods": 4}}}
    assert manifests.spelled_out(quota)["spec"] == {"hard": {"pods": "4"}}
    service = {"kind": "Service", "spec": {"ports": [{"port": 80}, {"port": 53, "protocol": "UDP"}]}}
    assert [one["protocol"] for one in manifests.spelled_out(service)["spec"]["ports"]] == ["TCP", "UDP"]


@pytest.mark.parametrize("spec", [None, [], "x", {"ports": "80"}, {"ports": [80, "x"]}])
def test_a_service_that_is_none_is_left_to_the_server_to_refuse(spec: object) -> None:
    assert manifests.spelled_out({"kind": "Service", "spec": spec})["spec"] == spec
