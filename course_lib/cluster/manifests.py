"""Manifests: objects as they are wished for, from files, from a Kustomize folder, or as they are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml

from course_lib import shell
from course_lib.cluster import explanations, tools
from course_lib.cluster.api import Object
from course_lib.errors import CourseError
from course_lib.settings import as_typed

_KUSTOMIZATIONS = ("kustomization.yaml", "kustomization.yml", "Kustomization")
#: What others live in or refer to goes first (as Kustomize's `legacy` order has it).
_FIRST = (
    "Namespace", "CustomResourceDefinition", "ResourceQuota", "LimitRange", "ServiceAccount", "Role", "ClusterRole",
    "RoleBinding", "ClusterRoleBinding", "ConfigMap", "Secret", "PersistentVolumeClaim", "NetworkPolicy", "Service",
)  # fmt: skip


def read(source: Path | Sequence[Object], *, kubectl: tools.Source = "registry") -> list[Object]:
    """The objects of a source, in an order in which they can be applied.

    Args:
        source: a file, a folder with a kustomization, a folder of YAML files, or the objects themselves.
        kubectl: where `kubectl`, which builds kustomizations, comes from if it is not on this machine.

    Raises:
        CourseError: there is no such file, it is no YAML, it holds something that is no object, or nothing at all.
    """
    if not isinstance(source, Path):
        return _ordered(source, "the list")
    name = shell.readable([str(as_typed(source))])
    if not source.exists():
        raise CourseError(f"{name} is not there", do="Look at the path; it counts from the checkout's folder.")
    if source.is_dir() and any((source / one).exists() for one in _KUSTOMIZATIONS):
        return _ordered(_documents(_built(source, kubectl), name), name)
    files = [source] if source.is_file() else sorted(p for p in source.iterdir() if p.suffix in (".yaml", ".yml"))
    return _ordered([one for file in files for one in _documents(file.read_text(), str(as_typed(file)))], name)


def spelled_out(manifest: Object) -> Object:
    """The same wish as every server takes it: until 1.21, server-side apply did not know that a Service's port without a
    protocol means TCP, and took an amount of CPU, memory or GPUs for one only where it was a string."""
    spec = manifest.get("spec")
    if manifest["kind"] == "Service" and isinstance(spec, dict) and isinstance(spec.get("ports"), list):
        # What is no port at all is for the server to refuse.
        ports = [{"protocol": "TCP"} | one if isinstance(one, dict) else one for one in spec["ports"]]
        return manifest | {"spec": spec | {"ports": ports}}
    found: Object = _with_strings(manifest)
    return found


def _with_strings(value: Any) -> Any:
    if isinstance(value, list):
        return [_with_strings(one) for one in value]
    if not isinstance(value, dict):
        return value
    found = {key: _with_strings(one) for key, one in value.items()}
    amounts = [(found.get("resources"), "requests"), (found.get("resources"), "limits"), (found, "hard")]
    for where, key in amounts:
        if isinstance(where, dict) and isinstance(where.get(key), dict):
            where[key] = {name: str(amount) for name, amount in where[key].items()}
    return found


def argument(source: Path | Sequence[Object]) -> str:
    """The source as one gives it to kubectl."""
    if not isinstance(source, Path):
        return "--filename=-"
    built = source.is_dir() and any((source / one).exists() for one in _KUSTOMIZATIONS)
    return f"--{'kustomize' if built else 'filename'}={as_typed(source)}"


def _built(folder: Path, kubectl: tools.Source) -> str:
    try:
        return shell.run([str(tools.kubectl(kubectl)), "kustomize", str(folder)], show=False, timeout=60).stdout
    except shell.CommandError as error:
        raise explanations.of_kubectl(error) from None


def _documents(text: str, name: str) -> list[Object]:
    try:
        return [one for one in yaml.safe_load_all(text) if one is not None]
    except yaml.YAMLError as error:
        raise CourseError(
            f"{name} can't be read", why=str(error), do="In YAML the indentation says what belongs to what."
        ) from None


def _ordered(objects: Iterable[Object], name: str) -> list[Object]:
    found = []
    for one in objects:
        meta = one.get("metadata") if isinstance(one, dict) else None
        named = [one.get("apiVersion"), one.get("kind"), meta.get("name")] if isinstance(meta, dict) else [None]
        if not all(isinstance(each, str) and each for each in named):
            raise CourseError(
                f"{name} holds something that is no Kubernetes object",
                why=str(one)[:300],
                do="Each object has apiVersion, kind, and metadata with a name.",
            )
        found.append(one)
    if not found:
        raise CourseError(f"{name} holds no objects", do="Write a manifest there first.")
    order = {kind: place for place, kind in enumerate(_FIRST)}
    return sorted(found, key=lambda one: order.get(one["kind"], len(order)))
