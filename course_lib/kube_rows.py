"""What the course makes on a cluster that is somebody's own: rows of the ledger that name it, and its removal by kubectl.

A row has to be enough: it is read after the session that wrote it, and perhaps after its folder. What is there is believed to be
the course's only where its labels say so; a namespace of the same name that somebody else made is not touched.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from course_lib import shell
from course_lib.errors import CourseError
from course_lib.settings import CHECKOUT

Kind = Literal["namespace", "cordon"]

#: The label that says which checkout made an object; `ledger.labels` gives it to namespaces, too.
CHECKOUT_LABEL = "org.course-lab.checkout"
_NAME = re.compile(r"(?P<name>\S+) of (?P<checkout>\S+) on (?P<context>.+?) in (?P<files>.+)")


@dataclass(frozen=True)
class Place:
    """A thing on a cluster, as a row names it."""

    name: str
    checkout: str
    """Of whom it is."""
    context: str
    files: str
    """The person's own kubeconfig, or several as the variable KUBECONFIG has them."""

    def __str__(self) -> str:
        return f"{self.name} of {self.checkout} on {self.context} in {self.files}"

    @classmethod
    def parse(cls, text: str) -> Place:
        """The place that a row names.

        Raises:
            ValueError: it names none.
        """
        found = _NAME.fullmatch(text)
        if found is None:
            raise ValueError(text)
        return cls(**found.groupdict())


def exists(kind: str, name: str) -> bool:
    """Whether it is there and the course's own. With its context gone from the kubeconfig, its cluster counts as gone, too.

    Raises:
        CourseError: the cluster does not say.
    """
    place = Place.parse(name)
    if not _has_context(place):
        return False
    found = _get(place, "namespace" if kind == "namespace" else "node")
    if kind == "cordon":
        return bool(found.get("spec", {}).get("unschedulable"))
    labels = found.get("metadata", {}).get("labels") or {}
    return bool(labels.get(CHECKOUT_LABEL) == place.checkout)


def remove(kind: str, name: str) -> None:
    """Deletes a namespace with all that is in it, or lets a node take pods again; waits for it, and does not say how it went."""
    place = Place.parse(name)
    if kind == "cordon":
        kubectl(place, "uncordon", place.name)
    else:
        # Pods take their terminationGracePeriodSeconds, and the namespace goes after the last of them.
        kubectl(place, "delete", "namespace", place.name, "--timeout=200s", timeout=220)


def kubectl(place: Place, *arguments: str, timeout: float = 20) -> shell.Completed:
    """kubectl, led by the person's own kubeconfig to the context that a row names."""
    command = [_program(), f"--context={place.context}", f"--request-timeout={timeout:.0f}s", *arguments]
    return shell.run(command, show=False, check=False, timeout=timeout + 15, env={"KUBECONFIG": place.files})


def _get(place: Place, kind: str) -> dict[str, Any]:
    """The object; empty where there is none."""
    said = kubectl(place, "get", kind, place.name, "--ignore-not-found", "--output=json")
    if said.stderr.strip() and not said.output:
        raise CourseError(
            f"the cluster of context {place.context} did not say whether {kind} {place.name} is there",
            why=said.stderr.strip()[-800:],
            do=f"When `kubectl --context={place.context} get {kind}s` answers again, run `course cleanup`.",
        )
    return dict(json.loads(said.stdout)) if said.output else {}


def _has_context(place: Place) -> bool:
    if not any(Path(file).exists() for file in place.files.split(os.pathsep)):
        return False
    return place.context in kubectl(place, "config", "get-contexts", "--output=name").stdout.splitlines()


def _program() -> str:
    """kubectl, from PATH or from where the course keeps programs that it had to fetch."""
    kept = (
        *CHECKOUT.glob(".cache/releases/kubectl-*/kubectl"),
        *CHECKOUT.glob(".cache/packages/kubectl/*/bin/kubectl"),
    )
    return shutil.which("kubectl") or (str(kept[0]) if kept else "kubectl")
