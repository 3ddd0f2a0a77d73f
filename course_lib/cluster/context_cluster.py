"""A cluster that was there before: reached by a context of the person's own kubeconfig, and touched in the lab's namespaces only."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from course_lib import kube_rows, ledger, reaper, shell
from course_lib.cluster import push, tools
from course_lib.cluster.api import Api
from course_lib.cluster.cluster import NODE_PORTS, Cluster, Node
from course_lib.cluster.fit import PORT_LABEL, FitAbroad
from course_lib.cluster.persons_kubeconfig import OWN, PersonsKubeconfig
from course_lib.cluster.port_forward import forward_service
from course_lib.errors import CourseError
from course_lib.kube_rows import Place
from course_lib.lab import display
from course_lib.ledger import Session
from course_lib.settings import settings

#: Seconds in which a node has to take a connection, if this machine reaches it at all.
_CONNECT = 1.0
_PATIENCE = 5.0


class ContextCluster(Cluster):
    """A cluster of somebody's, for the length of a lab.

    Its kubeconfig is a copy of the one context: whoever says `kubectl config use-context` meanwhile does not move the lab to
    another cluster.

    Args:
        short: the lab's name for it.
        source: where kubectl comes from, if it is not here.
        context: of the kubeconfig that kubectl takes; empty for its current one.
        registry: where images are pushed, and the nodes pull from, as in `registry.example.com/me`.
        cordons: whether its owner lets the course take a node out of service for a while.
    """

    fit: FitAbroad

    def __init__(
        self, short: str = "lab", *, source: tools.Source, context: str = "", registry: str = "", cordons: bool = False
    ) -> None:
        folder = f"{short}-of-context"
        file = settings().work_dir / "cluster" / folder / "images.json"
        super().__init__(short, source=source, folder=folder, fit=FitAbroad(file, settings().checkout_id))
        self._wanted = context
        self._theirs = PersonsKubeconfig(source)
        self.registry = registry.removeprefix("https://").rstrip("/")
        self.cordons = cordons
        self._open = ExitStack()
        self._forwarded: dict[tuple[str, str], str] = {}

    @cached_property
    def name(self) -> str:  # type: ignore[override]  # known when the kubeconfig was read
        """The context: the one that was asked for, else the one that the lab is at, else the current one."""
        if self._wanted:
            return self._wanted
        if self.kubeconfig.exists():
            return self.kubectl("config", "current-context", show=False).output
        return self._theirs.current()

    @property
    def description(self) -> Path:
        return self.folder / "cluster.yaml"

    def up(self, *, timeout: float = 240) -> list[Node]:
        """Signs in, and sees that the lab can be done there; makes nothing.

        Raises:
            CourseError: there is no such context, its cluster does not answer or has no node that is ready, this user may not
                make namespaces there, or no registry is named.
        """
        if not self.registry:
            raise CourseError(
                "no registry is named that the cluster's nodes pull from",
                why="Its nodes know nothing of the images in this machine's engine.",
                do="Set KUBE_REGISTRY, in the environment or in course.toml, as in registry.example.com/me; `docker login` to it first.",
            )
        self._sign_in()  # anew each time: tokens run out
        if not self.description.exists():
            self._require_rights()
        found = self.nodes()
        if not any(node.ready and node.schedulable for node in found):
            raise CourseError(f"no node of {self.name} takes pods", why=_listed(found), do=OWN)
        self.fit.architectures = frozenset(node.architecture for node in found if node.schedulable)
        told = {
            "context": self.name,
            "nodes": {node.name: f"{node.version}, {node.architecture}" for node in found},
            "images are pushed to": self.registry,
            "images": {name: one["reference"] for name, one in self.fit.pushed.items()},
        }
        self.description.write_text(yaml.safe_dump(told, sort_keys=False))
        return found

    def _require_rights(self) -> None:
        for verb in ("create", "delete"):
            said = self.kubectl("auth", "can-i", verb, "namespaces", show=False, check=False, timeout=30)
            if said.output.splitlines()[:1] != ["yes"]:
                raise CourseError(
                    f"this user may not {verb} namespaces on {self.name}",
                    why=said.stderr.strip()[-300:] or "`kubectl auth can-i` says no.",
                    do=f"Ask whoever runs it for that right, or name another context: KUBE_CONTEXT. {OWN}",
                )

    def down(self) -> None:
        """Deletes the session's namespaces and lets its node take pods again; the cluster and what was pushed stay."""
        self._open.close()
        self._forwarded.clear()
        rows = [row for row in ledger.rows(session=Session.current()) if row.kind in ("namespace", "cordon")]
        mine = [row for row in rows if Place.parse(row.name).context == self.name]
        for row in mine:
            shell.announce(
                f"kubectl {'delete namespace' if row.kind == 'namespace' else 'uncordon'} {row.name.split()[0]}"
            )
        if left := reaper.remove_all(mine):
            raise CourseError(
                f"{', '.join(row.name.split()[0] for row in left)} did not go from {self.name}",
                do=f"Look what holds it (`kubectl --context={self.name} get namespaces`), then run `course cleanup`.",
            )
        reaper.dispose("folder", str(self.folder))

    def left(self) -> list[str]:
        """The namespaces there that are this checkout's."""
        if not self.kubeconfig.exists():  # after the end: by the person's own
            said = self._theirs.kubectl(
                "get", "namespaces", f"--selector={_mark()}", "--output=name", f"--context={self.name}"
            )
        else:
            said = self.kubectl("get", "namespaces", f"--selector={_mark()}", "--output=name", show=False)
        return said.output.split()

    def claim(self, namespace: str) -> None:
        """Makes a namespace with the course's labels; its row leads there after the session is gone.

        Raises:
            CourseError: there is one of that name, which this session did not make.
        """
        found = self._namespace(namespace)
        labels = found.get("metadata", {}).get("labels") or {}
        owner = labels.get("org.course-lab.session", "")
        if found and owner == Session.current().id and "deletionTimestamp" not in found["metadata"]:
            return
        if found and (labels.get(kube_rows.CHECKOUT_LABEL) != settings().checkout_id or not owner):
            raise CourseError(
                f"{self.name} has a namespace {namespace} already, and this clone of the course did not make it",
                why="What is in it would get mixed up with the lab's, and go with it.",
                do="Take another cluster: each learner needs one to themselves, a small one is enough.",
            )
        if found and owner != Session.current().id and Session.parse(owner).alive:
            raise CourseError(
                f"namespace {namespace} on {self.name} belongs to another notebook of this checkout that is running",
                do="Shut that notebook's kernel down (in JupyterLab: the second tab on the left), and run the cell again.",
            )
        ledger.write_down("namespace", self._row(namespace))
        if found:  # left by a session that is gone, or on its way out
            kube_rows.remove("namespace", self._row(namespace))
        made = {"name": namespace, "labels": ledger.labels()}
        shell.announce(f"kubectl create namespace {namespace}")
        manifest = json.dumps({"apiVersion": "v1", "kind": "Namespace", "metadata": made})
        self.kubectl("create", "--filename=-", show=False, input=manifest)

    def release(self, namespace: str) -> None:
        """Deletes a namespace that carries the course's labels.

        Raises:
            CourseError: it is still there.
        """
        if not reaper.dispose("namespace", self._row(namespace)):
            raise CourseError(f"namespace {namespace} did not go from {self.name}", do="Run `course cleanup`.")

    def load(self, image: str, *, name: str = "") -> None:
        """Pushes an image; manifests that name it get its reference there, by digest.

        Raises:
            CourseError: this machine's engine has no such image, no node could run it, or the registry refuses it.
        """
        wanted = ["docker", "image", "inspect", "--format={{.Architecture}}", image]
        architecture = shell.run(wanted, show=False, check=False, timeout=30).output
        if not architecture:
            raise CourseError(f"this machine's engine has no image {image}", do="Build it first, or mend its name.")
        nodes = sorted(self.fit.architectures or {node.architecture for node in self.nodes() if node.schedulable})
        if architecture not in nodes:
            raise CourseError(
                f"{image} is for {architecture}, and the nodes of {self.name} are {' and '.join(nodes)}",
                why="A container of it would end at once, with `exec format error`.",
                do=f"Build it for them: `docker buildx build --platform=linux/{nodes[0]} …`, on such a machine or where a builder can.",
            )
        reference = push.push(image, self.registry, name or image)
        self.fit.add(name or image, reference, architecture)
        shell.announce(f"# on this cluster, {name or image} in a manifest is {reference}")

    def images(self) -> list[str]:
        """What was pushed, as manifests call it."""
        return sorted(self.fit.pushed)

    def address(self, node_port: int = NODE_PORTS[0]) -> str:
        """Where a Service of the lab's is reached: a port of the nodes where this machine reaches them, else a forwarded one.

        A forwarded port leads each connection to one of the pods that the Service lists, drawn by lot: here and not by the
        cluster's own network, to which it leads past.

        Args:
            node_port: the port that the Service asks for in its manifest. Here it got another one.

        Raises:
            CourseError: no Service of the lab's asks for that port.
        """
        namespace, service = self._service(node_port)
        key = namespace, service["metadata"]["name"]
        if key not in self._forwarded:
            ports = [one["nodePort"] for one in service["spec"]["ports"] if one.get("nodePort")]
            if ports and (direct := self._reached(ports[0])):
                return direct
            shell.announce(
                f"# this machine does not reach the nodes: {key[1]} through the API server, a pod a connection"
            )
            self._forwarded[key] = self._open.enter_context(forward_service(Api(self.kubeconfig), *key))
        return self._forwarded[key]

    def config(self, *, gpu: bool = False) -> dict[str, Any]:
        """The nodes as they are; nobody gives them GPUs that they don't have."""
        nodes = [{"name": node.name, "gpus": node.gpus, "extraMounts": []} for node in self.nodes()]
        return {"kind": "Cluster", "context": self.name, "nodes": nodes}

    def runs_as(self, node: Node) -> str:
        return node.image

    @contextmanager
    def drained(self, node: str) -> Iterator[bool]:
        """Empties a node of the lab's own pods, and of no others, if the cluster's owner lets the course do that."""
        if not self.cordons:
            display.verdict(
                f"{node} stays as it is",
                "skipped",
                [
                    ("why", "A node that is being emptied takes nobody's pods, and this cluster may be others', too."),
                    ("do", "KUBE_CORDON=yes lets the course take a node out of service for a minute, if it is yours."),
                ],
            )
            yield False
            return
        if any(one.name == node and not one.schedulable for one in self.nodes()):
            raise CourseError(f"{node} takes no pods already", do="Choose another node.")
        row = self._row(node)
        ledger.write_down("cordon", row)
        try:
            pods = f"--pod-selector={_mark()}"
            self.kubectl("drain", node, pods, "--delete-emptydir-data", "--timeout=400s", timeout=420)
            yield True
        finally:
            self.kubectl("uncordon", node)
            reaper.dispose("cordon", row)

    def _sign_in(self) -> None:
        """Copies the one context, with its certificates or token, for this user's eyes only."""
        shell.announce(f"kubectl config view --minify --flatten --context={self.name}")
        text = self._theirs.context(self.name)
        ledger.write_down("folder", str(self.folder))
        self.folder.mkdir(parents=True, exist_ok=True)
        self.kubeconfig.touch(mode=0o600)
        self.kubeconfig.write_text(text)
        asked = self.kubectl("version", "--output=json", "--request-timeout=15s", show=False, check=False, timeout=40)
        if "serverVersion" not in asked.stdout:
            raise CourseError(
                f"the cluster of context {self.name} does not answer",
                why=asked.stderr.strip()[-800:],
                do=f"`kubectl --context={self.name} get nodes` has to answer first: is it started, and this machine in its network?",
            )

    def _row(self, name: str) -> str:
        return str(Place(name, settings().checkout_id, self.name, self._theirs.files))

    def _namespace(self, name: str) -> dict[str, Any]:
        said = self.kubectl("get", "namespace", name, "--ignore-not-found", "--output=json", show=False).stdout
        return dict(json.loads(said)) if said.strip() else {}

    def _service(self, node_port: int) -> tuple[str, dict[str, Any]]:
        """(namespace, Service) of what asks for a port."""
        for name in self.left():
            namespace = name.partition("/")[2]
            said = self.kubectl("get", "services", f"--namespace={namespace}", "--output=json", show=False).stdout
            for one in json.loads(said)["items"]:
                labels = one["metadata"].get("labels") or {}
                given = [port.get("nodePort") for port in one["spec"].get("ports", [])]
                if labels.get(PORT_LABEL) == str(node_port) or node_port in given:
                    return namespace, one
        raise CourseError(
            f"no Service of the lab's on {self.name} asks for port {node_port} of the nodes",
            do="Apply it first, of type NodePort; `kubectl get services --all-namespaces` lists those there are.",
        )

    def _reached(self, port: int) -> str:
        """The address of a port on a node that takes connections from here; empty where none does."""
        found = json.loads(self.kubectl("get", "nodes", "--output=json", show=False).stdout)["items"]
        hosts = [
            one["address"]
            for kind in ("ExternalIP", "InternalIP")
            for node in found
            for one in node["status"].get("addresses", [])
            if one["type"] == kind
        ]
        end = time.monotonic() + _PATIENCE
        for host in hosts[:3]:
            while True:
                try:
                    socket.create_connection((host, port), timeout=_CONNECT).close()
                except ConnectionRefusedError:  # no pod is ready, or this node has not heard of the Service yet
                    if time.monotonic() > end:
                        break
                    time.sleep(0.3)
                except OSError:
                    break
                else:
                    return f"http://{f'[{host}]' if ':' in host else host}:{port}"
        return ""


def _mark() -> str:
    return f"{kube_rows.CHECKOUT_LABEL}={settings().checkout_id}"


def _listed(nodes: list[Node]) -> str:
    return "\n".join(f"{node.name}: {node.words()}" for node in nodes) or "It has no nodes."
