"""Manifests as a cluster takes them: as they are on one of the course's own, with a few fields otherwise on somebody else's."""

from __future__ import annotations

import json
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

from course_lib import kube_rows
from course_lib.cluster.api import Object

#: A Service's port on the nodes as its manifest has it; what the cluster gave it is in its spec.
PORT_LABEL = "org.course-lab.node-port"


class Fit:
    """Manifests as they are."""

    words = ""
    """What is otherwise, in a line; empty where nothing is."""

    def image(self, name: str) -> str:
        """What pods of this cluster call an image."""
        return name

    def manifest(self, found: Object) -> Object:
        """The same wish, as this cluster takes it."""
        return found


class FitAbroad(Fit):
    """Manifests for a cluster whose nodes pull from a registry, and whose ports belong to others, too.

    * An image that was pushed is called by its digest there.
    * A Service gets whatever port on the nodes is free; the one that it asked for stays as a label, to find it by.
    * The processes of a pod see each other (`shareProcessNamespace`): the first process of a container of its own can't be
      stopped or killed from inside it, so nobody could freeze a server without being on its node.
    * Pods carry a label that says whose they are: a node may be emptied of these and of no others.

    Args:
        file: where it is written down which image was pushed as what.
        checkout: whose pods they are.
    """

    words = "on this cluster: pushed images by digest, any free port of the nodes, shareProcessNamespace, a label that says whose pods"

    def __init__(self, file: Path, checkout: str) -> None:
        self._file = file
        self._checkout = checkout
        self.architectures: frozenset[str] = frozenset()
        """Of the nodes."""

    @property
    def pushed(self) -> dict[str, dict[str, str]]:
        """By the name in manifests: `reference`, with its digest, and `architecture`."""
        return dict(json.loads(self._file.read_text())) if self._file.exists() else {}

    def add(self, name: str, reference: str, architecture: str) -> None:
        """Notes that an image was pushed."""
        found = self.pushed | {name: {"reference": reference, "architecture": architecture}}
        self._file.write_text(json.dumps(found, indent=1))

    def image(self, name: str) -> str:
        return self.pushed.get(name, {}).get("reference", name)

    def manifest(self, found: Object) -> Object:
        fitted = deepcopy(found)
        if fitted["kind"] == "Service":
            _free_ports(fitted)
        for template in _templates(fitted):
            self._fit(template)
        return fitted

    def _fit(self, template: dict[str, Any]) -> None:
        spec, pushed = template["spec"], self.pushed
        metadata = template.setdefault("metadata", {})
        metadata["labels"] = (metadata.get("labels") or {}) | {kube_rows.CHECKOUT_LABEL: self._checkout}
        spec["shareProcessNamespace"] = True
        for container in [*(spec.get("initContainers") or []), *(spec.get("containers") or [])]:
            image = pushed.get(container.get("image", ""))
            if image is None:
                continue
            container["image"] = image["reference"]
            if len(self.architectures) > 1:
                spec["nodeSelector"] = (spec.get("nodeSelector") or {}) | {"kubernetes.io/arch": image["architecture"]}


def _free_ports(service: Object) -> None:
    for port in (service.get("spec") or {}).get("ports") or []:
        if wanted := port.pop("nodePort", None):
            labels = service["metadata"].get("labels") or {}
            service["metadata"]["labels"] = labels | {PORT_LABEL: str(wanted)}


def _templates(found: Object) -> Iterator[dict[str, Any]]:
    """The pod, or the templates that pods are made from, of an object."""
    spec = found.get("spec")
    if not isinstance(spec, dict):
        return
    if found["kind"] == "Pod":
        yield found
    elif found["kind"] == "CronJob":
        yield from _templates(spec.get("jobTemplate", {}) | {"kind": "Job"})
    elif isinstance(spec.get("template"), dict) and isinstance(spec["template"].get("spec"), dict):
        yield spec["template"]
