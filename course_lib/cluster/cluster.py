"""What the lab and its checks ask of a cluster, whether the course made it or it was there before."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from course_lib import shell, waits
from course_lib.cluster import explanations, tools
from course_lib.cluster.fit import Fit
from course_lib.errors import CourseError
from course_lib.settings import CHECKOUT, settings

#: The NodePorts that the lab's Services have in its manifests: its own one, and the one of whatever an exercise is about.
NODE_PORTS = (30080, 30081)


@dataclass(frozen=True)
class Node:
    """A node as Kubernetes sees it."""

    name: str
    role: str
    ready: bool
    reason: str
    """Why it is not ready, in the kubelet's words."""
    version: str
    schedulable: bool
    image: str = ""
    """Its operating system."""
    architecture: str = ""
    """As images have it: amd64, arm64."""
    gpus: str = "0"
    """How many NVIDIA GPUs its device plugin offers."""

    def words(self) -> str:
        """Its state in a line."""
        state = "Ready" if self.ready else f"NotReady: {self.reason}"
        return f"{state}{'' if self.schedulable else ', cordoned'}"

    @classmethod
    def of(cls, found: dict[str, Any]) -> Node:
        """A node as the API has it."""
        labels, status = found["metadata"]["labels"], found["status"]
        ready = next((one for one in status["conditions"] if one["type"] == "Ready"), {"status": "Unknown"})
        control = {"node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master"} & set(labels)
        return cls(
            name=found["metadata"]["name"],
            role="control-plane" if control else "worker",
            ready=ready["status"] == "True",
            reason=str(ready.get("message", "")),
            version=status["nodeInfo"]["kubeletVersion"],
            schedulable=not found["spec"].get("unschedulable", False),
            image=status["nodeInfo"].get("osImage", ""),
            architecture=labels.get("kubernetes.io/arch", status["nodeInfo"].get("architecture", "")),
            gpus=status.get("allocatable", {}).get("nvidia.com/gpu", "0"),
        )


class Cluster(ABC):
    """A cluster that is spoken to by a kubeconfig of its own.

    Args:
        short: its name among this checkout's clusters.
        source: where programs come from on this machine, such as `kubectl`: a registry's releases, or Debian's packages.
        folder: where that kubeconfig lies while the cluster is in use.
        fit: what manifests need to have otherwise on it.
    """

    def __init__(self, short: str, *, source: tools.Source, folder: str, fit: Fit) -> None:
        self.short = short
        self.source = source
        self.folder = settings().work_dir / "cluster" / folder
        self.fit = fit

    name: str
    """What it is called where it is listed."""

    @property
    def kubeconfig(self) -> Path:
        """Its own, which leads to nothing else: ~/.kube/config is not touched."""
        return self.folder / "kubeconfig"

    @property
    @abstractmethod
    def description(self) -> Path:
        """A file to show, that says what it is made of; there once it is up."""

    @abstractmethod
    def up(self, *, timeout: float = 240) -> list[Node]:
        """Makes it ready for the lab. One that is so already is left alone."""

    @abstractmethod
    def down(self) -> None:
        """Takes away whatever the course made of it or on it."""

    @abstractmethod
    def left(self) -> list[str]:
        """What of the above is still there."""

    @abstractmethod
    def load(self, image: str, *, name: str = "") -> None:
        """Brings an image of this machine's engine to where the nodes find it.

        Args:
            name: what manifests call it there; by default what it is called here.
        """

    @abstractmethod
    def images(self) -> list[str]:
        """The images that were brought there, as manifests call them."""

    @abstractmethod
    def address(self, node_port: int = NODE_PORTS[0]) -> str:
        """Where a Service of type NodePort is reached from this machine, as `http://127.0.0.1:…`."""

    @abstractmethod
    def claim(self, namespace: str) -> None:
        """Makes a namespace the course's own, before anything is put there."""

    @abstractmethod
    def release(self, namespace: str) -> None:
        """Deletes a namespace of the course's own with all that is in it, and waits until it is gone; none is no error."""

    @abstractmethod
    def runs_as(self, node: Node) -> str:
        """What a node is underneath: the image of its container, or its operating system.

        Raises:
            CourseError: it is not there, or does not run.
        """

    @abstractmethod
    def drained(self, node: str) -> AbstractContextManager[bool]:
        """A node without the lab's pods, for as long as the block lasts; gives whether that was done."""

    @abstractmethod
    def config(self, *, gpu: bool = False) -> dict[str, Any]:
        """What its nodes are, or would be on a GPU host."""

    def nodes(self) -> list[Node]:
        """The nodes as the API server lists them, the control plane first.

        Raises:
            CourseError: there is no cluster, or it does not answer.
        """
        if not self.kubeconfig.exists():
            raise CourseError(f"there is no cluster {self.short}", do="Make one: `course cluster up`.")
        found = json.loads(self.kubectl("get", "nodes", "--output=json", show=False).stdout)
        return sorted((Node.of(one) for one in found["items"]), key=lambda one: (one.role != "control-plane", one.name))

    def kubectl(
        self, *arguments: str, show: bool = True, check: bool = True, timeout: float = 120, input: str | None = None
    ) -> shell.Completed:
        """Runs kubectl against this cluster; what is shown is what one would type.

        Raises:
            CourseError: it failed; says in a sentence what is known of the reason.
        """
        program = str(tools.kubectl(self.source))
        if show:
            shell.announce(shell.readable(["kubectl", *arguments]))
        try:
            return shell.run(
                [program, *arguments], show=False, check=check, timeout=timeout, input=input,
                env={"KUBECONFIG": str(self.kubeconfig)}, cwd=CHECKOUT,
            )  # fmt: skip
        except shell.CommandError as error:
            raise explanations.of_kubectl(error) from None

    def wait_metrics(self, *, timeout: float = 300) -> None:
        """Waits until CPU and memory of pods can be asked for: `kubectl top` and autoscalers need them, nothing else does.

        Raises:
            CourseError: they can't be in time; says what the API server says of it.
        """

        def probe() -> None:
            found = self.kubectl("get", "apiservice", "v1beta1.metrics.k8s.io", "--output=json", show=False)
            conditions = json.loads(found.stdout).get("status", {}).get("conditions", [])
            available: dict[str, str] = next((one for one in conditions if one["type"] == "Available"), {})
            if available.get("status") != "True":
                raise waits.NotYet(available.get("message", "it is not registered yet"))

        do = "Look at its pod: `kubectl --namespace=kube-system get pods --selector=k8s-app=metrics-server`."
        waits.until(probe, what="the metrics API to answer", timeout=timeout, every=0.5, do=do)
