"""Deploying to a cluster: what `kubectl` does for Deployments, over Kubernetes' own client, and explained when it fails.

Each call shows the kubectl line that does the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from course_lib import shell
from course_lib.cluster import (
    autoscaling,
    deletion,
    events,
    manifests,
    pods,
    revisions,
    rollout,
    rollout_wait,
    tools,
    usage,
)
from course_lib.cluster.api import Api, Object
from course_lib.cluster.autoscaling import Autoscaler
from course_lib.cluster.events import Event
from course_lib.cluster.fit import Fit
from course_lib.cluster.pods import Pod
from course_lib.cluster.port_forward import forward
from course_lib.cluster.revisions import Revision
from course_lib.cluster.rollout import Rollout, Status
from course_lib.errors import CourseError

_APPS = ("apps/v1", "Deployment")


@dataclass(frozen=True)
class Applied:
    """What became of one manifest."""

    kind: str
    name: str
    namespace: str
    """Empty for what lives in none."""
    change: Literal["created", "changed", "unchanged"]


class Deployer:
    """Deployments of one namespace, and what belongs to them.

    Args:
        namespace: where it works.
        kubeconfig: the cluster and the login; by default what kubectl takes, or a pod's own service account.
        context: a context of that file; by default its current one.
        kubectl: where the program comes from that builds kustomizations, if it is not on this machine.
        fit: what manifests need to have otherwise on this cluster.

    Raises:
        CourseError: the kubeconfig is not there, or can't be read.
    """

    def __init__(
        self, namespace: str, *, kubeconfig: Path | None = None, context: str | None = None,
        kubectl: tools.Source = "registry", fit: Fit | None = None,
    ) -> None:  # fmt: skip
        self.namespace = namespace
        self.api = Api(kubeconfig, context)
        self.kubectl: tools.Source = kubectl
        self.fit = fit or Fit()
        self._shown: set[str] = set()

    def apply(self, source: Path | Sequence[Object], *, force: bool = True, dry_run: bool = False) -> list[Applied]:
        """Makes the cluster have what manifests say; fields that they leave out stay as others have set them.

        Args:
            source: a folder with a kustomization, a file, or the manifests themselves. What names no namespace goes into
                this one.
            force: take over fields that somebody else has set to something else; without, that is an error.
            dry_run: the server checks everything, and changes nothing.

        Raises:
            CourseError: a manifest can't be read, or the server refuses it: says which, and which field. Those before it
                are applied.
        """
        found = [self.fit.manifest(one) for one in manifests.read(source, kubectl=self.kubectl)]
        flags = ["--force-conflicts"] * force + ["--dry-run=server"] * dry_run
        self._announce("apply", "--server-side", *flags, manifests.argument(source))
        if self.fit.words and self.fit.words not in self._shown:
            self._shown.add(self.fit.words)
            shell.announce(f"# {self.fit.words}")
        return [self._apply(one, force=force, dry_run=dry_run) for one in found]

    def wait(self, name: str, *, timeout: float = 180) -> Rollout:
        """Waits until a Deployment's new pods serve; see `rollout_wait.wait` for what ends it early, and how it is explained."""
        self._announce("rollout", "status", f"deployment/{name}", f"--timeout={timeout:.0f}s")
        return rollout_wait.wait(self.api, self.namespace, name, timeout=timeout)

    def status(self, name: str) -> Status:
        """How many replicas a Deployment has, how many are ready and available, and its conditions."""
        self._announce("get", "deployment", name, once=True)
        return rollout.status(self._deployment(name))

    def pods(self, name: str) -> list[Pod]:
        """A Deployment's pods, those on their way out, too."""
        labels = pods.selector(self._deployment(name))
        self._announce("get", "pods", f"--selector={labels}", "--output=wide", once=True)
        return pods.pods(self.api, self.namespace, labels)

    def set_image(self, name: str, image: str, *, container: str = "") -> None:
        """Gives a Deployment another image, which starts a rollout; `wait` waits for it.

        Args:
            container: which one; needed where there are several.

        Raises:
            CourseError: there is no such Deployment or container.
        """
        names = [one["name"] for one in self._deployment(name)["spec"]["template"]["spec"]["containers"]]
        chosen = container or (names[0] if len(names) == 1 else "")
        if chosen not in names:
            raise CourseError(
                f"Deployment {name} has no container {container}"
                if container
                else f"Deployment {name} has several containers",
                do=f"Name one of them: container={' or '.join(map(repr, names))}.",
            )
        image = self.image(image)
        self._announce("set", "image", f"deployment/{name}", f"{chosen}={image}")
        containers = [{"name": chosen, "image": image}]  # lists of containers are merged by name
        self._patch(name, {"spec": {"template": {"spec": {"containers": containers}}}})

    def image(self, name: str) -> str:
        """What pods of this cluster call an image that manifests name."""
        return self.fit.image(name)

    def scale(self, name: str, replicas: int) -> None:
        """Asks for a number of pods. An autoscaler of the same Deployment will change it again.

        Raises:
            CourseError: there is no such Deployment, or the number is negative.
        """
        self._announce("scale", f"deployment/{name}", f"--replicas={replicas}")
        self._patch(name, {"spec": {"replicas": replicas}})

    def autoscale(
        self, name: str, *, maximum: int, minimum: int = 1, cpu: int = 70, behavior: dict[str, Any] | None = None
    ) -> Applied:
        """Lets the cluster choose the number of pods, so that they use a share of the CPU that they request.

        Args:
            cpu: percent of the request, the mean over the pods.
            behavior: how fast it goes up and down (`spec.behavior`); kubectl's own command can't say it.

        Raises:
            CourseError: there is no such Deployment, its containers request no CPU, or the numbers contradict each other.
        """
        found = autoscaling.manifest(
            self._deployment(name), minimum=minimum, maximum=maximum, cpu=cpu, behavior=behavior
        )
        self._announce(
            "autoscale", f"deployment/{name}", f"--min={minimum}", f"--max={maximum}", f"--cpu-percent={cpu}"
        )
        return self._apply(found, force=True, dry_run=False)

    def autoscaler(self, name: str) -> Autoscaler:
        """What the autoscaler of a Deployment has measured and decided."""
        self._announce("get", "hpa", name, once=True)
        return autoscaling.read(self.api, self.namespace, name)

    def rollback(self, name: str, *, to: int | None = None) -> int:
        """Gives a Deployment the template that it had before, which is a rollout as any other; `wait` waits for it.

        Args:
            to: a revision of `history`; by default the one before.

        Returns:
            the number of the revision that was taken up. It gets a new number.

        Raises:
            CourseError: there is no such revision.
        """
        deployment = self._deployment(name)
        found = revisions.previous(deployment, revisions.replica_sets(self.api, deployment), to)
        number = revisions.number(found)
        self._announce("rollout", "undo", f"deployment/{name}", *([f"--to-revision={to}"] if to else []))
        # The whole template, so a patch that replaces: a merge would keep what the newer one has added.
        replaced = [{"op": "replace", "path": "/spec/template", "value": revisions.template(found)}]
        self.api.patch(*_APPS, name, self.namespace, replaced, how="json-patch")
        return number

    def history(self, name: str) -> list[Revision]:
        """A Deployment's revisions and their ReplicaSets, the oldest first."""
        self._announce("rollout", "history", f"deployment/{name}", once=True)
        deployment = self._deployment(name)
        return revisions.of(deployment, revisions.replica_sets(self.api, deployment))

    def restart(self, name: str) -> None:
        """Replaces a Deployment's pods by new ones of the same template, one after the other."""
        self._announce("rollout", "restart", f"deployment/{name}")
        now = datetime.now(UTC).isoformat(timespec="seconds")
        note = {"kubectl.kubernetes.io/restartedAt": now}  # another template, if only by this
        self._patch(name, {"spec": {"template": {"metadata": {"annotations": note}}}})

    def logs(self, name: str, *, lines: int = 20, container: str = "", previous: bool = False) -> str:
        """The last log lines of a pod, or of each pod of a Deployment, under their names.

        Args:
            name: of a pod or of a Deployment.
            lines: of each pod.
            previous: of the run before this one.
        """
        pod = self.api.find("v1", "Pod", name, self.namespace)
        chosen = [f"--container={container}"] * bool(container) + ["--previous"] * previous
        self._announce("logs", name if pod else f"deployment/{name}", f"--tail={lines}", *chosen)
        labels = "" if pod else pods.selector(self._deployment(name))
        names = [name] if pod else [one.name for one in pods.pods(self.api, self.namespace, labels)]
        said = {
            one: pods.logs(self.api, self.namespace, one, container=container, lines=lines, previous=previous)
            for one in names
        }
        return said[name] if pod else "\n".join(f"==> {one} <==\n{text}" for one, text in said.items())

    def events(self, name: str = "") -> list[Event]:
        """What Kubernetes noted, the oldest first: about everything here, or about objects of a name."""
        only = [f"--field-selector=involvedObject.name={name}"] * bool(name)
        self._announce("get", "events", "--sort-by=.lastTimestamp", *only, once=True)
        return events.events(self.api, self.namespace, name=name)

    def delete(self, labels: str, *, timeout: float = 180) -> list[str]:
        """Deletes what carries the labels, of whatever kind, and waits until it is gone; returns what was deleted.

        Args:
            labels: a selector, as in `app.kubernetes.io/part-of=course`. Where the namespace itself carries them, it goes,
                too, with all that is in it.
        """
        self._announce("delete", "all,configmap,secret,hpa,pvc,…", f"--selector={labels}")
        return deletion.delete(self.api, self.namespace, labels, timeout=timeout)

    @contextmanager
    def port_forward(self, name: str, port: int) -> Iterator[str]:
        """An address on this machine that leads to one pod while the block runs; no Service chooses, and nothing is shared out.

        Args:
            name: of a pod, or of a Deployment: then one of its ready pods.
            port: the container's.

        Raises:
            CourseError: there is no such pod, or none that is ready.
        """
        pod = name
        if not self.api.find("v1", "Pod", name, self.namespace):
            each = pods.pods(self.api, self.namespace, pods.selector(self._deployment(name)))
            ready = [one.name for one in each if one.ready and not one.terminating]
            if not ready:
                raise CourseError(
                    f"Deployment {name} has no pod that is ready",
                    why="\n".join(f"{one.name}: {one.words()}" for one in each),
                    do="Wait for it first: `deployer.wait(…)` says what is wrong.",
                )
            pod = ready[0]
        self._announce("port-forward", f"pod/{pod}", f":{port}")
        with forward(self.api, self.namespace, pod, port) as address:
            yield address

    def counted(self, name: str, metric: str, *, port: int, **labels: str) -> dict[str, float]:
        """A counter of each running pod of a Deployment, by pod; see `usage.counted`."""
        each = pods.pods(self.api, self.namespace, pods.selector(self._deployment(name)))
        running = [one.name for one in each if one.phase == "Running" and not one.terminating]
        return usage.counted(self.api, self.namespace, running, metric, port=port, **labels)

    def used(self, name: str) -> dict[str, usage.Usage]:
        """CPU and memory of each pod of a Deployment, by pod; see `usage.used`."""
        labels = pods.selector(self._deployment(name))
        self._announce("top", "pods", f"--selector={labels}", once=True)
        return usage.used(self.api, self.namespace, labels)

    def _deployment(self, name: str) -> Object:
        return self.api.get(*_APPS, name, self.namespace)

    def _patch(self, name: str, body: Object) -> None:
        self.api.patch(*_APPS, name, self.namespace, body)

    def _apply(self, manifest: Object, *, force: bool, dry_run: bool) -> Applied:
        version, kind, meta = manifest["apiVersion"], manifest["kind"], manifest["metadata"]
        namespace = meta.get("namespace") or self.namespace
        inside = self.api.kind(version, kind).namespaced
        before = self.api.find(version, kind, meta["name"], namespace if inside else None)
        after = self.api.apply(manifests.spelled_out(manifest), namespace, force=force, dry_run=dry_run)
        change: Literal["created", "changed", "unchanged"] = "created"
        if before:
            change = "unchanged" if _wished(before) == _wished(after) else "changed"
        return Applied(kind, meta["name"], namespace if inside else "", change)

    def _announce(self, *arguments: str, once: bool = False) -> None:
        """Shows a kubectl line; what only looks is shown once, so that a loop does not fill the page with it."""
        line = shell.readable(["kubectl", f"--namespace={self.namespace}", *arguments])
        if not once or line not in self._shown:
            shell.announce(line)
        self._shown.add(line)


def _wished(found: Object) -> Object:
    """An object without what the server keeps account of by itself."""
    own = ("managedFields", "resourceVersion", "generation")
    meta = {key: value for key, value in found["metadata"].items() if key not in own}
    return {key: value for key, value in found.items() if key != "status"} | {"metadata": meta}
