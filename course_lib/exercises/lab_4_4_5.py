"""The exercises of lab 4.4.5: manifests that are mended and written, events that are read, load that is held, and a terminal.

A check applies what the learner wrote to the lab's cluster, in a namespace of its own, and looks at the API server, the pods
and the answers. Hints come in three: what to think about, where to look, how it is said.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from course_lib.exercises import (
    cluster_diagnosis,
    cluster_door,
    cluster_hold,
    cluster_lossless,
    cluster_never_ready,
    cluster_one_gpu,
    cluster_own,
    cluster_right_size,
    cluster_terminal,
)
from course_lib.exercises import cluster_scenes as scenes
from course_lib.lab.exercise import exercise
from course_lib.settings import as_typed

__all__ = [
    "as_typed", "chats", "deadlock", "deployer", "drained", "lab_cluster", "left_of", "nodes_of", "predictions", "see_it_fail",
    "some_events", "terminal_task", "usage_under_load", "used_of",
]  # fmt: skip

LAB = "4.4.5"

chats, predictions = scenes.chats, scenes.predictions
deployer, lab_cluster = scenes.deployer, scenes.lab_cluster
drained, left_of, nodes_of, used_of = scenes.drained, scenes.left_of, scenes.nodes_of, scenes.used_of
deadlock = cluster_one_gpu.deadlock
see_it_fail, some_events = cluster_never_ready.see_it_fail, cluster_diagnosis.show_events
terminal_task, usage_under_load = cluster_terminal.show_task, cluster_right_size.usage_under_load


@exercise(
    LAB,
    "never-ready",
    "A Deployment that never gets ready",
    files=True,
    hints=(
        "Mend what the check names first, then run it again: a pod comes as far as its first trouble, and each hides the next. Which part of its way is it on: mounting, pulling, starting, being asked, being found?",
        "Who asks a registry for an image that lies on the node? Which Secret is there, and which one is asked for? What ends a process with exit code 137? What does the server answer to each path? And whom does the Service look for?",
        "`imagePullPolicy: IfNotPresent`; the Secret is `inference-keys`; the server needs some 200 MiB; `/ready` says whether it may get work; a Service's selector has to be labels of the pods, from the Deployment's template.",
    ),
)
def never_ready(folder: Path) -> dict[str, object]:
    return cluster_never_ready.require_mended(folder)


@exercise(
    LAB,
    "from-events",
    "What is wrong, told from the events alone",
    hints=(
        "Sort the events by Deployment first, then ask each heap of them one question after the other. Which question comes first matters: a program that is killed by its probe restarts as well.",
        "`event.object` is `Pod/NAME-HASH-ID`; what pods are called after is left when the last two parts are cut off. One reason can mean two things (`Failed`, `BackOff`): `event.message` tells them apart.",
        "Unhealthy → probe; FailedMount, or Failed with `configmap` or `secret` → missing; FailedScheduling → no room; other Failed, and ErrImageNeverPull → image; BackOff with `restarting` → crashes; none of these → well.",
    ),
)
def from_events(diagnose: cluster_diagnosis.Diagnose) -> dict[str, object]:
    return cluster_diagnosis.require_told(diagnose)


@exercise(
    LAB,
    "closed-door",
    "A door for those with a label",
    files=True,
    hints=(
        "deny-all has shut both ends. A connection has to be allowed twice: by a policy that selects the server (ingress) and by one that selects who calls (egress). And before it comes a question to DNS.",
        "Two policies are enough, each with the podSelector of the pods it is about. Policies see the port of the pod (8080), not the Service's (80). In a list, each `-` opens one more way; what stands under one `-` has to hold together.",
        'Server: ingress, from podSelector `inference-client: "true"`, port 8080. Clients: egress, one rule to the server\'s pods at 8080; another to namespaceSelector `kubernetes.io/metadata.name: kube-system` with podSelector `k8s-app: kube-dns` under the same `-`, port 53, UDP and TCP.',
    ),
)
def closed_door(folder: Path) -> dict[str, object]:
    return cluster_door.require_closed(folder)


@exercise(
    LAB,
    "in-a-terminal",
    "A bad rollout, undone by hand",
    hints=(
        "Say once which cluster you mean (`export KUBECONFIG=…`), then look before you touch anything: which pods are there, and which revision made them?",
        "`kubectl rollout history` lists the revisions with what was written down about them; `kubectl get replicasets` shows which one has a pod that is ready. `kubectl rollout undo` goes one back, unless it is told where to.",
        "`kubectl --namespace=on-call rollout undo deployment/helpdesk --to-revision=1`, then `scale deployment/helpdesk --replicas=2` and `annotate deployment/helpdesk incident=…`.",
    ),
)
def in_a_terminal() -> dict[str, object]:
    return cluster_terminal.require_done()


@exercise(
    LAB,
    "right-size",
    "Requests and limits from what is used",
    hints=(
        "Look at the measurement first: which rows hold nothing but load, and which hold the quiet before it? A request is what a node sets aside for you; a limit is where you are stopped.",
        "A measurement is the mean of some 15 seconds, so the rows from 20 seconds on are the ones to go by. Take the most of them, with some room for the request. CPU above its limit waits, memory above its limit is killed: which of them wants more room?",
        'loaded = measured[measured["at"] >= 20]; requests of 1.2 times its maximum, limits of 2.5 times (cpu) and 1.5 times (memory); f"{cores * 1000:.0f}m" and f"{size / 2**20:.0f}Mi".',
    ),
)
def right_size(sizes: Callable[..., cluster_right_size.Sizes]) -> dict[str, object]:
    return cluster_right_size.require_right_size(sizes)


@exercise(
    LAB,
    "no-request-lost",
    "A rollout that loses no request",
    files=True,
    hints=(
        "Follow one pod through its life: when does the Service begin to send to it, when does it stop, and what does the pod do in between and after? Then ask how many pods are in that state at once.",
        "`/health` is 200 while the models are being loaded, `/ready` is not. A pod that is told to end is still on the other nodes' lists for a moment. And from that moment on, terminationGracePeriodSeconds is all the time it has: for the hook, the delay and the drain together.",
        'maxUnavailable: 0 with maxSurge: 1; readinessProbe on /ready; lifecycle.preStop.exec.command: [sleep, "5"]; terminationGracePeriodSeconds: 30, which is more than 5 + 20. k8s/base/deployment.yaml has it all.',
    ),
)
def no_request_lost(folder: Path) -> dict[str, object]:
    return cluster_lossless.require_loses_nothing(folder)


@exercise(
    LAB,
    "hold-p95",
    "An autoscaler that keeps answers quick",
    files=True,
    hints=(
        "An autoscaler knows nothing of answers. It sees one figure, and keeps it near a target: which figure rises when people wait, and falls when a replica is added?",
        "averageUtilization is a percentage of what is *requested* (200m), and a replica stops at its *limit* (300m): above which percentage can it never be seen? `behavior` has a part for each direction.",
        "metrics: type Resource, cpu, Utilization, 70; minReplicas 1, maxReplicas 3; behavior: scaleUp.stabilizationWindowSeconds 0, scaleDown.stabilizationWindowSeconds 120. k8s/base/autoscaler.yaml has the form.",
    ),
)
def hold_p95(folder: Path) -> dict[str, object]:
    return cluster_hold.require_holds(folder)


@exercise(
    LAB,
    "own-manifests",
    "Your own manifests",
    files=True,
    deliverable=True,
    hints=(
        "You have read each part of it above. Begin with a Deployment that gets ready and a Service that finds it; then close it, bound it, and let it end well; the autoscaler and the budget come last.",
        "k8s/base has one object a file, with a comment for each line that is there for a reason. What is not asked for here (service account, network policies, spread) you may leave out.",
        "Take k8s/base/deployment.yaml, service.yaml, autoscaler.yaml and disruption-budget.yaml; a ConfigMap with what settings.env says instead of the generator; NodePort 30081; no namespaces; limits that fit; and check each line you take.",
    ),
)
def own_manifests(folder: Path) -> dict[str, object]:
    return cluster_own.require_signed_and_sound(folder)
