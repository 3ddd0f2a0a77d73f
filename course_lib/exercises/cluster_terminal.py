"""The exercise of lab 4.4.5 that is done in a terminal: a bad rollout at night, undone by hand."""

from __future__ import annotations

import os
import secrets
import shutil
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from course_lib import waits
from course_lib.cluster import Cluster, Deployer, serving, tools
from course_lib.cluster.api import Object
from course_lib.exercises import cluster_scenes as scenes
from course_lib.exercises.cluster_checks import part
from course_lib.lab import display
from course_lib.lab.exercise import NotAttempted, NotYet
from course_lib.settings import CHECKOUT, as_typed

NAMESPACE, DEPLOYMENT = "on-call", "helpdesk"
REPLICAS = 2
NOTE = "incident"
_RELEASE = "RELEASE"
#: What was rolled out, one after the other: release, what differs, what was written down about it.
_ROLLOUTS: tuple[tuple[str, Object, str], ...] = (
    ("7.2", {}, "release 7.2"),
    ("7.3", {"image": "registry.invalid/helpdesk:7.3"}, "release 7.3: faster answers"),
    ("7.3.1", {"command": ["helpdesk", "serve"]}, "release 7.3.1: mends 7.3"),
)
_GOOD = _ROLLOUTS[0][0]


@dataclass(frozen=True)
class TerminalTask:
    """What the commands need, and what the check looks for."""

    kubeconfig: str
    namespace: str
    incident: str
    folder: Path
    """Where commands are typed: the checkout."""
    environment: dict[str, str]
    """What a terminal has to be told first."""


@cache
def _incident() -> str:
    """Another number each session: what an earlier one wrote down is no proof."""
    return f"INC-{secrets.randbelow(9000) + 1000}"


def show_task() -> TerminalTask:
    """Plays the night up to now on the lab's cluster, where that has not been done yet, and shows what is asked."""
    cluster = scenes.ready_cluster()
    deployer = scenes.deployer(cluster, NAMESPACE)
    if deployer.api.find("apps/v1", "Deployment", DEPLOYMENT, NAMESPACE) is None:
        _play(deployer)
    program = tools.kubectl(cluster.source)
    told = {"KUBECONFIG": str(as_typed(cluster.kubeconfig))}
    if shutil.which("kubectl") is None:
        told["PATH"] = f"{program.parent}{os.pathsep}{os.environ['PATH']}"
    task = TerminalTask(told["KUBECONFIG"], NAMESPACE, _incident(), CHECKOUT, told)
    first = [f"export KUBECONFIG={task.kubeconfig}"]
    first += [f'export PATH="{program.parent}:$PATH"'] if "PATH" in told else []
    display.table(
        [
            {"what": "how to speak to this cluster, once", "exactly": "; ".join(first)},
            {"what": "where", "exactly": f"Deployment {DEPLOYMENT}: kubectl --namespace={NAMESPACE} …"},
            {"what": "look at it first", "exactly": "its pods, then rollout history"},
            {
                "what": "the release that worked",
                "exactly": "back to it: it is the newest one whose pods were ever ready",
            },
            {"what": "replicas", "exactly": f"{REPLICAS}, for the morning is busy"},
            {"what": "for the next shift", "exactly": f"an annotation of the Deployment: {NOTE}={task.incident}"},
            {"what": "to begin anew", "exactly": f"kubectl delete namespace {NAMESPACE}, then this cell again"},
        ],
        caption="In a terminal, in the checkout's folder",
    )
    return task


def require_done() -> dict[str, object]:
    """Reads from the API server what the Deployment is now.

    Raises:
        NotAttempted: it is as the night has left it.
        NotYet: something of it is not as asked.
    """
    cluster = scenes.lab_cluster()
    found = _found(cluster)
    release, replicas = _release(found), part(found, "spec", "replicas")
    note = part(found, "metadata", "annotations", NOTE)
    if release == _ROLLOUTS[-1][0] and replicas == 1 and note is None:
        raise NotAttempted
    if release != _GOOD:
        raise NotYet(
            f"release {release} is what Deployment {DEPLOYMENT} should run now",
            expected="the newest one whose pods were ever ready",
            look="`kubectl rollout history`: the revision before the last need not be a good one; `kubectl get replicasets` has them all",
        )
    if replicas != REPLICAS:
        raise NotYet(
            f"{replicas} replicas are asked for", expected=str(REPLICAS), look="`kubectl scale --help`: its examples"
        )
    if note != _incident():
        raise NotYet(
            f"the annotation {NOTE} is {note!r}",
            expected=_incident(),
            look="`kubectl annotate --help`: KEY=VALUE; `rollout undo` brings back the annotations of its revision, so write it last",
        )
    ready = _settled(scenes.deployer(cluster, NAMESPACE))
    return {"release": release, "replicas ready": ready, NOTE: note}


def _found(cluster: Cluster) -> Object:
    if not cluster.kubeconfig.exists():
        raise NotYet("the lab's cluster does not run", expected="the one of this notebook", look="the cell with up()")
    api = scenes.deployer(cluster, NAMESPACE).api
    if found := api.find("apps/v1", "Deployment", DEPLOYMENT, NAMESPACE):
        return found
    raise NotYet(
        f"there is no Deployment {DEPLOYMENT} in namespace {NAMESPACE}",
        expected="the one that the cell above makes",
        look="run that cell again",
    )


def _settled(deployer: Deployer) -> int:
    """How many pods of the release are ready, once all are: whoever types a command checks a moment later.

    Raises:
        NotYet: they don't get ready.
    """

    def probe() -> int:
        status = deployer.status(DEPLOYMENT)
        if not status.seen or not status.wanted == status.ready == status.updated == status.total:
            raise waits.NotYet(status.words())
        return int(status.ready)

    try:
        return waits.until(probe, what=f"{DEPLOYMENT} to be ready", timeout=240, every=0.3)
    except waits.WaitTimeout as late:
        raise NotYet(late.why, expected=f"{REPLICAS} pods, ready", look="`kubectl get pods`, and `describe`") from None


def _play(deployer: Deployer) -> None:
    """The night: a release that works, and two that don't; the pod of the first still answers."""
    deployer.apply([{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}])
    for number, rollout in enumerate(_ROLLOUTS, 1):
        deployer.apply([_deployment(*rollout)])
        if number == 1:
            deployer.wait(DEPLOYMENT)

        def come_so_far(revision: int = number) -> None:
            newest = deployer.history(DEPLOYMENT)[-1]
            states = [
                one.reason for one in deployer.pods(DEPLOYMENT) if newest.replica_set.endswith(f"-{one.template}")
            ]
            if newest.number < revision or not states or {"Pending", "ContainerCreating"} & set(states):
                raise waits.NotYet(f"revision {newest.number}: {', '.join(states) or 'no pod'}")

        waits.until(
            come_so_far, what=f"a pod of release {rollout[0]} to run, or to say why not", timeout=240, every=0.2
        )


def _deployment(release: str, differs: Object, cause: str) -> Object:
    labels = {"app": DEPLOYMENT}
    container = {
        "name": "main",
        "image": serving.IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python3", "-m", "http.server", "8080", "--directory", "/tmp"],
        "env": [{"name": _RELEASE, "value": release}],
        "readinessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1},
    }
    pod = {
        "terminationGracePeriodSeconds": 1,
        "automountServiceAccountToken": False,
        "containers": [container | differs],
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": DEPLOYMENT, "annotations": {"kubernetes.io/change-cause": cause}},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": labels},
            "strategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }


def _release(deployment: Object) -> str:
    variables = part(deployment, "spec", "template", "spec", "containers", 0, "env") or []
    return next((str(one.get("value")) for one in variables if one.get("name") == _RELEASE), "unknown")
