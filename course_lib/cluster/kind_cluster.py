"""A Kubernetes cluster on this machine, by kind: each node is a container. Started with an explanation for what fails."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from course_lib import ledger, reaper, shell, waits
from course_lib.cluster import explanations, node_image, preflight, sysctls, tools
from course_lib.cluster.cluster import NODE_PORTS, Cluster, Node
from course_lib.cluster.fit import Fit
from course_lib.cluster.node_image import NodeImage
from course_lib.errors import CourseError
from course_lib.lab import display
from course_lib.ledger import Lifetime
from course_lib.settings import CHECKOUT, as_typed, settings

#: From 1.35 on the kubelet does not start on cgroup v1 unless it is told to.
_OLD_CGROUPS = "kind: KubeletConfiguration\nfailCgroupV1: false\n"
_ALL_GPUS = "/var/run/nvidia-container-devices/cdi/runtime.nvidia.com/gpu/all"
#: kind draws its lines anew.
_CONTROL = re.compile(r"\x1b\[[0-9;]*[A-Za-z]|[\r\x00-\x08]")


class KindCluster(Cluster):
    """A cluster of one control plane and some workers.

    Args:
        short: its name among this checkout's clusters; the whole name has the checkout's number in front, so that two
            clusters on one machine do not collide.
        source: where images come from on this machine: a registry, or Debian's packages.
        workers: nodes beside the control plane; with none, the control plane runs the pods.
        lifetime: `run` is gone when this session ends; `kept` is what a person started in a terminal.
    """

    def __init__(
        self, short: str = "lab", *, source: tools.Source, workers: int = 2, lifetime: Lifetime = "run"
    ) -> None:
        super().__init__(short, source=source, folder=short, fit=Fit())
        self.workers = workers
        self.lifetime: Lifetime = lifetime
        self.name = settings().object_name(short)
        self.phases: dict[str, float] = {}
        """Seconds that each phase of the last `up` took."""
        self._said: list[tuple[float, str]] = []

    @property
    def description(self) -> Path:
        """All that kind was told."""
        return self.folder / "kind.yaml"

    @property
    def containers(self) -> tuple[str, ...]:
        """The nodes' containers, which are named as the nodes are."""
        workers = [f"{self.name}-worker{n if n > 1 else ''}" for n in range(1, self.workers + 1)]
        return (f"{self.name}-control-plane", *workers)

    @cached_property
    def node(self) -> NodeImage:
        """What its nodes are made of."""
        return node_image.choose(self.source)

    def up(self, *, timeout: float = 480) -> list[Node]:
        """Makes the cluster and waits until each node is Ready. One that runs is left alone.

        Raises:
            CourseError: Docker does not answer or has too little disk, a node does not get Ready, a port or a name is taken;
                says which, with the kubelet's and containerd's last words. What had been made is removed again.
        """
        if self._answers():
            return self.nodes()
        preflight.require(1 + self.workers)
        _ = self.node  # made or fetched now, before anything of the cluster is
        self.phases, self._said = {}, []
        with self._phase("what an earlier one left, removed"):
            self._remove()  # a killed session leaves it half made
        self.folder.mkdir(parents=True, exist_ok=True)
        for kind, name in self._objects():
            ledger.write_down(kind, name)
        sysctls.write_down(self.name, "run")
        config = self.description
        config.write_text(yaml.safe_dump(self.config(gpu=settings().profile == "gpu"), sort_keys=False))
        live = display.Live()
        try:
            with self._phase("kind create cluster"), ThreadPoolExecutor(1) as pool:
                made = pool.submit(self.create, config, timeout=timeout)
                while not made.done():
                    live.draw_text(self._progress())
                    with suppress(TimeoutError):
                        made.result(0.5)
                made.result()
            with self._phase("every node Ready"):
                self._wait_ready(timeout, live)
            with self._phase("metrics server"):
                self._add_metrics()
        except BaseException as error:
            said = self._explain() if isinstance(error, CourseError) else ""
            self._remove()
            if isinstance(error, CourseError):
                raise explanations.of_start(error, said) from None
            raise
        if self.lifetime == "kept":
            for kind, name in self._objects():
                ledger.write_down(kind, name, "kept")
            sysctls.write_down(self.name, "kept")
        return self.nodes()

    def _add_metrics(self) -> None:
        """The metrics server, and when it answers, its API.

        Both at once fail now and then: the API server asks the Service's address as soon as the API is registered,
        and before kube-proxy knows that address the question leaves the node by its default route. Where the network's own
        proxy takes up every connection to port 443, the API server keeps this one and hears 404 from it for ever. (So the
        Service has another port, too: a ready server is not yet one that kube-proxy knows.)
        """
        if image := node_image.metrics_to_load(self.node):
            self.load(image)
        folder = node_image.METRICS.relative_to(CHECKOUT)
        # By kubectl's own merge: APIServices can't be applied by the server before 1.21.
        self.kubectl("apply", f"--filename={folder}/metrics-server.yaml")
        waiting = ("rollout", "status", "--namespace=kube-system", "deployment/metrics-server", "--timeout=240s")
        self.kubectl(*waiting, timeout=260)
        self.kubectl("apply", f"--filename={folder}/api-service.yaml")

    def create(self, config: Path, *, timeout: float = 480) -> None:
        """Hands a configuration to kind, and leaves what it made, whole or not; `up` is for everybody else.

        Raises:
            CommandError: kind refuses it, or does not get to its end.
        """
        image = [f"--image={self.node.reference}"] if self.node.reference else []
        command = ["create", "cluster", f"--name={self.name}", f"--config={as_typed(config)}", *image]
        self._kind(*command, "--wait=0s", "--retain", timeout=timeout)

    def down(self) -> None:
        """Removes the cluster and everything in it."""
        shell.announce(shell.readable(["kind", "delete", "cluster", f"--name={self.name}"]))
        self._remove()

    def node_reference(self) -> str:
        """The image that its nodes are: of a cluster that runs the one it was made of, else the one it would be made of.

        Raises:
            CourseError: kind's own image, which only a cluster that runs can name.
        """
        asked = shell.run(
            ["docker", "container", "inspect", "--format={{.Config.Image}}", self.containers[0]],
            show=False, check=False, timeout=30,
        ).output  # fmt: skip
        if reference := asked or self.node.reference:
            return reference
        raise CourseError(
            "kind names its node image when it makes a cluster",
            do="Run `course cluster up` first, which pulls it, then this again.",
        )

    def load(self, image: str, *, name: str = "") -> None:
        """Copies an image of this machine's engine onto every node.

        Args:
            name: what it is called there; by default what it is called here.

        Raises:
            CourseError: the engine has no such image, or it is of another architecture than the nodes.
        """
        self.load_all({name or image: image})

    def load_all(self, images: Mapping[str, str]) -> None:
        """Copies several images at once: what they share is carried once.

        Args:
            images: by what each is called on the nodes, what it is called here.

        Raises:
            CourseError: as `load`.
        """
        for image in images.values():
            _require_fits(image)
        # `kind load docker-image` trips over the containerd image store ("content digest not found"); an archive does not.
        archive = self.folder / "image.tar"
        try:
            with _tagged({name: image for name, image in images.items() if name != image}):
                shell.run(["docker", "image", "save", f"--output={archive}", *images], timeout=600)
            self._kind("load", "image-archive", str(as_typed(archive)), f"--name={self.name}", timeout=600)
        finally:
            archive.unlink(missing_ok=True)

    def images(self, node: str | None = None) -> list[str]:
        """The names of the images on a node, as its containerd lists them."""
        listing = [
            "docker",
            "exec",
            node or self.containers[-1],
            "ctr",
            "--namespace=k8s.io",
            "images",
            "list",
            "--quiet",
        ]
        said = shell.run(listing, show=False, timeout=30).output.split()
        return sorted(name for name in said if not name.startswith("sha256:"))

    def address(self, node_port: int = NODE_PORTS[0]) -> str:
        """Where a Service of type NodePort is reached from this machine: `http://127.0.0.1:…`.

        Raises:
            CourseError: the cluster has no such port to the outside.
        """
        if node_port not in NODE_PORTS:
            raise CourseError(
                f"port {node_port} of the nodes does not lead outside",
                do=f"Give the Service one of these as its nodePort: {', '.join(map(str, NODE_PORTS))}.",
            )
        said = shell.run(["docker", "port", self.containers[0], f"{node_port}/tcp"], show=False, timeout=30).output
        return f"http://{said.splitlines()[0]}"

    def claim(self, namespace: str) -> None:
        """Nothing to do: all that is in this cluster goes with it."""

    def release(self, namespace: str) -> None:
        name = ("namespace", namespace, "--ignore-not-found")
        self.kubectl("delete", *name, "--wait=false", show=False, timeout=60)

        def gone() -> None:
            if said := self.kubectl("get", *name, "--output=json", show=False, timeout=60).output:
                holds = [one for one in json.loads(said)["status"].get("conditions", []) if one["status"] == "True"]
                raise waits.NotYet("\n".join(one["message"] for one in holds) or "it is being deleted")

        # Not by kubectl's own waiting, which does not tell what a namespace is held by.
        waits.until(gone, what=f"namespace {namespace} to be gone", timeout=400, every=0.3)

    def left(self) -> list[str]:
        """Containers and networks that the engine still has of it, and the file that led to it."""
        rows = []
        for kind, listing in (
            ("container", ["docker", "ps", "--all", "--format={{.Names}}"]),
            ("network", ["docker", "network", "ls", "--format={{.Name}}"]),
        ):
            names = shell.run(listing, show=False, timeout=30).output.split()
            rows += [f"{kind} {name}" for name in names if name == self.name or name in self.containers]
        return rows + [f"file {self.kubeconfig.name}"] * self.kubeconfig.exists()

    def runs_as(self, node: Node) -> str:
        state, image = self._state(node.name)
        if state != "running":
            raise CourseError(f"node {node.name} is no running container", do="Start the cluster: `course.up()`.")
        return image

    @contextmanager
    def drained(self, node: str) -> Iterator[bool]:
        """Empties a node, as before its repair: nothing new comes, and its pods are asked to go; afterwards it is back."""
        try:
            self.kubectl("drain", node, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=400s", timeout=420)
            yield True
        finally:
            self.kubectl("uncordon", node)

    def config(self, *, gpu: bool = False) -> dict[str, Any]:
        """The cluster in kind's own format.

        Args:
            gpu: the last node sees this machine's GPUs. Mounting nothing at a place that NVIDIA's container runtime looks at
                is how a container asks for devices where it can't say `--gpus`
                (https://docs.nvidia.com/datacenter/cloud-native/container-toolkit/latest/cdi-support.html).
        """
        ports = [
            # Another free port of this machine for each cluster; loopback only.
            {"containerPort": port, "hostPort": 0, "listenAddress": "127.0.0.1", "protocol": "TCP"}
            for port in NODE_PORTS
        ]
        nodes: list[dict[str, Any]] = [{"role": "control-plane", "extraPortMappings": ports}]
        nodes += [{"role": "worker"} for _ in range(self.workers)]
        if gpu:
            nodes[-1]["labels"] = {"nvidia.com/gpu.present": "true"}
            nodes[-1]["extraMounts"] = [{"hostPath": "/dev/null", "containerPath": _ALL_GPUS}]
        patches = [] if self.node.fallback or not _old_cgroups() else [_OLD_CGROUPS]
        return {
            "kind": "Cluster",
            "apiVersion": "kind.x-k8s.io/v1alpha4",
            "networking": {"apiServerAddress": "127.0.0.1"},
            "kubeadmConfigPatches": patches,
            "nodes": nodes,
        }

    def _objects(self) -> list[tuple[ledger.Kind, str]]:
        containers: list[tuple[ledger.Kind, str]] = [("container", name) for name in self.containers]
        return [*containers, ("network", self.name), ("folder", str(self.folder))]

    def _kind(self, *arguments: str, timeout: float) -> shell.Completed:
        shell.announce(shell.readable(["kind", *arguments]))
        # A network of its own: kind's is shared by all clusters of a machine, and nobody could say whose it is.
        env = {"KUBECONFIG": str(self.kubeconfig), "KIND_EXPERIMENTAL_DOCKER_NETWORK": self.name}
        return shell.run(
            [str(self.node.kind), *arguments],
            show=False,
            timeout=timeout,
            env=env,
            cwd=CHECKOUT,
            on_line=lambda line: self._said.append((time.monotonic(), _CONTROL.sub("", line).strip())),
        )

    @contextmanager
    def _phase(self, name: str) -> Iterator[None]:
        began = time.monotonic()
        try:
            yield
        finally:
            self.phases[name] = time.monotonic() - began

    def kind_steps(self) -> dict[str, float]:
        """Seconds of each of kind's own steps in the last `up`: it says when one begins (•) and when it is done (✓)."""
        begun = {_step(line): at for at, line in self._said if line.startswith("•")}
        done = {_step(line): at for at, line in self._said if line.startswith("✓")}
        return {name: done[name] - at for name, at in begun.items() if name in done}

    def _progress(self) -> str:
        """kind's own last lines."""
        return "\n".join([line for _, line in self._said if line][-6:]) or f"making {self.name}"

    @staticmethod
    def _state(container: str) -> tuple[str, str]:
        """A container's state and its image; both empty where it is not there."""
        said = shell.run(
            ["docker", "container", "inspect", "--format={{.State.Status}} {{.Config.Image}}", container],
            show=False, check=False, timeout=30,
        ).output  # fmt: skip
        state, _, image = said.partition(" ")
        return state, image

    def _answers(self) -> bool:
        if not self.kubeconfig.exists():
            return False

        def asked() -> bool:
            try:
                said = self.kubectl("get", "--raw=/readyz", show=False, check=False, timeout=30)
            except CourseError as slow:
                raise waits.NotYet(slow.what) from None
            # It is there, and unwell for a moment; or it is being started again: kubectl takes an empty kubeconfig for localhost.
            starts = "localhost:8080" not in said.stderr and self._state(self.containers[0])[0] == "running"
            if said.output != "ok" and ("Error from server" in said.stderr or starts):
                raise waits.NotYet(said.stderr)
            return said.output == "ok"

        try:
            return waits.until(asked, what="the API server", timeout=60, every=1)
        except waits.WaitTimeout:
            return False

    def _wait_ready(self, timeout: float, live: display.Live) -> None:
        def probe() -> None:
            found = self.nodes()
            live.draw_text("\n".join(f"{'✓' if one.ready else '…'} {one.name:<36} {one.words()}" for one in found))
            waiting = [one for one in found if not one.ready]
            if len(found) < 1 + self.workers or waiting:
                raise waits.NotYet("; ".join(f"{one.name} {one.words()}" for one in waiting) or f"{len(found)} nodes")

        waits.until(probe, what="every node to be Ready", timeout=timeout, every=0.3)

    def _explain(self) -> str:
        """How each node is, with the last words of its kubelet and its containerd."""
        parts = []
        for name in self.containers:
            asked = shell.run(
                ["docker", "container", "inspect", "--format={{.State.Status}} {{.State.ExitCode}}", name],
                show=False, check=False, timeout=30,
            )  # fmt: skip
            if not asked.output:
                continue
            parts.append(f"{name}: {asked.output}")
            for unit in ("kubelet", "containerd"):
                said = shell.run(
                    ["docker", "exec", name, "journalctl", f"--unit={unit}", "--no-pager", "--lines=6", "--output=cat"],
                    show=False, check=False, timeout=30,
                ).output  # fmt: skip
                parts += [f"  {unit}: {line[:240]}" for line in said.splitlines()]
            if not asked.output.startswith("running"):
                said = shell.run(["docker", "logs", "--tail=6", name], show=False, check=False, timeout=30).output
                parts += [f"  {line[:240]}" for line in said.splitlines()]
        return "\n".join(parts)

    def _remove(self) -> None:
        """Takes every object away, however far it had come, and strikes the rows."""
        listed = shell.run(
            ["docker", "ps", "--all", "--format={{.Names}}", f"--filter=label=io.x-k8s.kind.cluster={self.name}"],
            show=False, check=False, timeout=30,
        ).output.split()  # fmt: skip
        names = dict.fromkeys([*self.containers, *listed])
        with suppress(CourseError):  # what it has not managed is seen below
            shell.run(["docker", "rm", "--force", "--volumes", *names], show=False, check=False, timeout=300)
        us = ledger.Session.current()
        rows = [ledger.Row("container", name, "run", "", us) for name in names]
        rows += [ledger.Row(kind, name, "run", "", us) for kind, name in self._objects() if kind == "network"]
        left = reaper.remove_all(rows)
        if left:
            raise CourseError(
                f"the engine did not remove {', '.join(row.name for row in left)}",
                do="Look with `docker ps --all`, and run `course cleanup`.",
            )
        shutil.rmtree(self.folder, ignore_errors=True)
        ledger.strike("folder", str(self.folder))
        sysctls.put_back(self.name)


@contextmanager
def running(cluster: KindCluster) -> Iterator[KindCluster]:
    """A cluster that is up inside the block and gone after it."""
    cluster.up()
    try:
        yield cluster
    finally:
        cluster.down()


def _id(image: str) -> str:
    return shell.run(["docker", "image", "inspect", "--format={{.Id}}", image], show=False, check=False).output


@contextmanager
def _tagged(images: Mapping[str, str]) -> Iterator[None]:
    """Images have another name, too, for as long as the block lasts; whatever had that name before has it again afterwards.

    One at a time on this machine: two notebooks give their images the same name.
    """
    with (Path(tempfile.gettempdir()) / f"course-tags-{os.getuid()}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        before = {name: _id(name) for name in images}
        try:
            for name, image in images.items():
                if not before[name]:
                    ledger.write_down("image", name)
                shell.run(["docker", "image", "tag", image, name])
            yield
        finally:
            for name, known in before.items():
                if known:
                    shell.run(["docker", "image", "tag", known, name], show=False, check=False)
                else:
                    reaper.dispose("image", name)


def _require_fits(image: str) -> None:
    """The engine has an image, and it is for the nodes, which are of the engine's own architecture."""
    asked = shell.run(
        ["docker", "image", "inspect", "--format={{.Architecture}}", image], show=False, check=False, timeout=30
    )
    if not asked.output:
        raise CourseError(f"this machine's engine has no image {image}", do="Build it first, or mend its name.")
    nodes = shell.run(["docker", "version", "--format={{.Server.Arch}}"], show=False, timeout=30).output
    if asked.output != nodes:
        raise CourseError(
            f"{image} is for {asked.output}, and the nodes are {nodes}",
            why="A container of it would end at once, with `exec format error`.",
            do=f"Build it for this machine: `docker build --platform=linux/{nodes} …`.",
        )


def _step(line: str) -> str:
    """The name of a step of kind's, without its picture and the image that it names."""
    return re.sub(r" \(.*|\W*$", "", line[1:].strip())


def _old_cgroups() -> bool:
    """Whether the engine's machine has cgroup v1 only."""
    return shell.run(["docker", "info", "--format={{.CgroupVersion}}"], show=False, timeout=30).output == "1"
