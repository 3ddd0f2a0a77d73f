"""Kustomize folders, built by kubectl and held against the schemas of a Kubernetes version."""

from __future__ import annotations

import os
from collections.abc import Iterator
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import yaml

from course_lib import shell
from course_lib.cluster import tools
from course_lib.images import bases
from course_lib.settings import CHECKOUT

K8S = CHECKOUT / "k8s"
#: The version whose API the manifests are written for.
VERSION = "1.37"

Manifest = dict[str, Any]

#: Everything that is built and applied; the overlays hold `base`.
FOLDERS = (
    "overlays/local",
    "overlays/gpu",
    "overlays/cloud",
    "batch",
    "batch/reader",
    "components/model-volume/loader",
    "gpu/device-plugin",
    "gpu/time-slicing",
    "strategies/rolling",
    "strategies/blue-green",
    "strategies/door",
    "with model-volume",
)


def kustomize(folder: Path) -> str:
    """What `kubectl apply --kustomize` would send."""
    kubectl = tools.kubectl(bases.source()[0])
    return shell.run([str(kubectl), "kustomize", str(folder)], show=False, timeout=60).stdout


@cache
def _built(folder: str) -> str:
    return kustomize(K8S / folder)


def build(folder: str, scratch: Path) -> list[Manifest]:
    """The objects of one of FOLDERS, yours to change."""
    if folder == "with model-volume":
        write_overlay(scratch, K8S / "overlays/local", components=[K8S / "components/model-volume"])
        text = kustomize(scratch)
    else:
        text = _built(folder)
    return [one for one in yaml.safe_load_all(text) if one]


def write_overlay(folder: Path, on: Path, *, image: str = "", components: list[Path] | None = None) -> None:
    """Makes a folder an overlay on another: another image, more components. Kustomize takes relative paths only."""
    folder.mkdir(parents=True, exist_ok=True)
    inside = folder.resolve()
    overlay: Manifest = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [os.path.relpath(on, inside)],
        "components": [os.path.relpath(one, inside) for one in components or []],
    }
    if image:
        name, _, tag = image.rpartition(":")
        overlay["images"] = [{"name": "inference-server", "newName": name, "newTag": tag}]
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(overlay))


def complaint(manifest: Manifest, version: str = VERSION) -> str:
    """What a Kubernetes of that version would not take: an unknown field, a wrong type, a version that is gone; else nothing."""
    try:
        kubernetes_validate.validate(manifest, version, strict=True)
    except kubernetes_validate.ValidationError as error:
        return f"{'.'.join(map(str, error.path))}: {error.message}"
    except kubernetes_validate.SchemaNotFoundError as error:
        return str(error.message)
    return ""


def of_kind(objects: list[Manifest], *kinds: str) -> list[Manifest]:
    return [one for one in objects if one["kind"] in kinds]


def pods(objects: list[Manifest]) -> Iterator[tuple[str, Manifest]]:
    """(who, pod template) of everything that makes pods; a bare Pod is its own template."""
    for one in objects:
        who = f"{one['kind']} {one['metadata']['name']}"
        if one["kind"] == "Pod":
            yield who, one
        elif one["kind"] in ("Deployment", "DaemonSet", "StatefulSet", "Job"):
            yield who, one["spec"]["template"]


def containers(objects: list[Manifest]) -> Iterator[tuple[str, Manifest]]:
    """(who, container) of all of them, those that only start the others included."""
    for who, pod in pods(objects):
        for one in [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]:
            yield f"{who}, {one['name']}", one


def copied(objects: list[Manifest]) -> list[Manifest]:
    return deepcopy(objects)
