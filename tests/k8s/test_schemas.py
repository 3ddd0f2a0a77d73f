"""Each folder is built and taken, field by field, by the API it is written for; and the one who says so says no, too."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from course_lib.settings import CHECKOUT
from tests.k8s.manifests import FOLDERS, K8S, VERSION, Manifest, build, complaint, of_kind


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_object_is_one_of_today(folder: str, tmp_path: Path) -> None:
    objects = build(folder, tmp_path)
    assert objects
    assert {f"{one['kind']} {one['metadata']['name']}": complaint(one) for one in objects if complaint(one)} == {}


LEARNERS = sorted(
    file
    for where in ("labs/starters/4.4.5", "solutions/4.4.5")
    for file in (CHECKOUT / where).rglob("*.yaml")
    if file.name != "kustomization.yaml"
)


@pytest.mark.parametrize("file", LEARNERS, ids=lambda file: "/".join(file.parts[-3:]))
def test_what_learners_write_is_of_today(file: Path) -> None:
    """The starters, too, and the wrong answers: what is wrong with them is not their form, but for one of them."""
    said = "".join(complaint(one) for one in yaml.load_all(file.read_text(), OneOfEachKey))
    assert ("periodSecond" in said) if file.parent.name == "wrong-typing-error" else not said, said


def test_the_schemas_are_of_the_newest_version_that_the_package_has() -> None:
    assert kubernetes_validate.latest_version().startswith(f"{VERSION}.")


def test_every_folder_is_tested() -> None:
    found = {path.parent.relative_to(K8S).as_posix() for path in K8S.rglob("kustomization.yaml")}
    # base is what the overlays hold, the component one of "with model-volume", and metrics-server is its makers'
    parts = {"base", "components/model-volume", "metrics-server"}
    parts |= {f"strategies/{name}" for name in ("common", "track", "blue", "green", "stable", "candidate")}
    assert found - parts == set(FOLDERS) - {"with model-volume"}


def test_every_file_is_used() -> None:
    """A manifest that no kustomization names is applied by nobody."""
    for folder in {path.parent for path in K8S.rglob("kustomization.yaml")}:
        named = yaml.safe_load((folder / "kustomization.yaml").read_text())
        uses = yaml.safe_dump(named)
        for file in folder.iterdir():
            assert file.name == "kustomization.yaml" or file.is_dir() or file.name in uses, file


class OneOfEachKey(yaml.SafeLoader):
    """Refuses a key that is there twice: kubectl and Kustomize take the last one without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key) for key, _ in node.value]
        if twice := [key for key in keys if keys.count(key) > 1]:
            raise yaml.constructor.ConstructorError(None, None, f"{twice[0]} is there twice", node.start_mark)
        return super().construct_mapping(node, deep)


def test_a_file_holds_one_object_and_each_key_once() -> None:
    for file in K8S.rglob("*.yaml"):
        if not {"kind", "metrics-server"} & set(file.relative_to(K8S).parts):
            assert len(list(yaml.load_all(file.read_text(), OneOfEachKey))) == 1, file


def test_a_key_that_is_there_twice_is_found() -> None:
    service = (K8S / "base" / "service.yaml").read_text()
    assert yaml.load(service, OneOfEachKey)["spec"]["type"] == "ClusterIP"
    with pytest.raises(yaml.YAMLError, match="type is there twice"):
        yaml.load(service + "  type: NodePort\n", OneOfEachKey)


def _typing_error(deployment: Manifest) -> None:
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    container["readynessProbe"] = container.pop("readinessProbe")


def _wrong_level(deployment: Manifest) -> None:
    """The classic: beside the containers instead of in one."""
    pod = deployment["spec"]["template"]["spec"]
    pod["resources"] = {"requests": pod["containers"][0].pop("resources")}
    pod["livenessProbe"] = pod["containers"][0].pop("livenessProbe")


def _field_of_another_kind(deployment: Manifest) -> None:
    deployment["spec"]["completions"] = 3


def _wrong_type(deployment: Manifest) -> None:
    deployment["spec"]["replicas"] = "three"


def _number_for_text(deployment: Manifest) -> None:
    deployment["spec"]["template"]["spec"]["containers"][0]["env"][0]["value"] = 8080


def _removed_version(deployment: Manifest) -> None:
    deployment["apiVersion"] = "extensions/v1beta1"


def _no_selector(deployment: Manifest) -> None:
    del deployment["spec"]["selector"]


@pytest.mark.parametrize(
    "spoil",
    [
        _typing_error,
        _wrong_level,
        _field_of_another_kind,
        _wrong_type,
        _number_for_text,
        _removed_version,
        _no_selector,
    ],
)
def test_a_deployment_that_is_not_right_is_refused(spoil: Callable[[Manifest], None], tmp_path: Path) -> None:
    deployment = of_kind(build("overlays/local", tmp_path), "Deployment")[0]
    assert not complaint(deployment)
    spoil(deployment)
    assert complaint(deployment)


@pytest.mark.parametrize(
    ("kind", "version", "gone"),
    [
        ("HorizontalPodAutoscaler", "autoscaling/v2beta2", "1.26"),
        ("PodDisruptionBudget", "policy/v1beta1", "1.25"),
    ],
)
def test_a_version_that_is_gone_is_refused(kind: str, version: str, gone: str, tmp_path: Path) -> None:
    found = of_kind(build("overlays/local", tmp_path), kind)[0]
    found["apiVersion"] = version
    assert "find schema" in complaint(found, gone) and "find schema" in complaint(found)
