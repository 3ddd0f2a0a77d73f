"""How a rollout is judged, from objects as the API sends them; test_deployer_cluster.py has a cluster send the same."""

from __future__ import annotations

from datetime import UTC, datetime
from math import inf
from typing import Any

import pytest

from course_lib.cluster import problems, revisions, rollout
from course_lib.cluster.events import Event
from course_lib.cluster.rollout import Snapshot, judge
from course_lib.cluster.rollout_wait import overdue
from course_lib.errors import CourseError

Object = dict[str, Any]


def template(image: str = "web:1") -> Object:
    return {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "web", "image": image}]}}


def deployment(
    image: str = "web:2", *, wanted: int = 1, seen: bool = True, conditions: tuple[Object, ...] = (), **numbers: int
) -> Object:
    """A Deployment; `numbers` are fields of its status."""
    return {
        "metadata": {
            "name": "web", "namespace": "lab", "uid": "d", "generation": 2, "creationTimestamp": "2026-11-21T10:00:00Z",
            "annotations": {revisions.REVISION: "2"},
        },
        "spec": {"replicas": wanted, "template": template(image), "selector": {"matchLabels": {"app": "web"}}},
        "status": {"observedGeneration": 2 if seen else 1, "conditions": list(conditions), **numbers},
    }  # fmt: skip


def replica_set(revision: int, image: str) -> Object:
    found = template(image)
    found["metadata"] = {"labels": {"app": "web", "pod-template-hash": f"h{revision}"}}
    return {
        "metadata": {
            "name": f"web-h{revision}", "uid": f"r{revision}", "creationTimestamp": "2026-11-21T10:00:00Z",
            "annotations": {revisions.REVISION: str(revision)}, "ownerReferences": [{"uid": "d", "controller": True}],
        },
        "spec": {"template": found}, "status": {"replicas": 1},
    }  # fmt: skip


SETS = [replica_set(1, "web:1"), replica_set(2, "web:2")]


def pod(
    revision: int = 2, *, state: Object | None = None, last: Object | None = None, restarts: int = 0, ready: bool = False,
    conditions: tuple[Object, ...] = (), leaving: bool = False, phase: str = "Running", first: Object | None = None,
) -> Object:  # fmt: skip
    status = {
        "name": "web",
        "ready": ready,
        "restartCount": restarts,
        "state": state or {},
        "lastState": {"terminated": last} if last else {},
    }
    each = [{"type": "Ready", "status": str(ready)}, *conditions]
    return {
        "metadata": {"name": f"web-h{revision}-x", "ownerReferences": [{"uid": f"r{revision}"}], "labels": {"pod-template-hash": f"h{revision}"}}
        | ({"deletionTimestamp": "2026-11-21T10:00:00Z"} if leaving else {}),
        "spec": {"nodeName": "n", "containers": [{"name": "web", "image": "web"}]},
        "status": {"phase": phase, "conditions": each, "containerStatuses": [status] if state else [], "initContainerStatuses": [first] if first else []},
    }  # fmt: skip


def waiting(reason: str, message: str = "") -> Object:
    return {"waiting": {"reason": reason, "message": message}}


def noted(reason: str, message: str, *, container: str = "web") -> Event:
    return Event(datetime.now(UTC), "Warning", "Pod/web-h2-x", container, reason, message, 1)


def one(found: Object, *events: Event) -> problems.Problem:
    """The only problem of a pod."""
    each = problems.of_pod(found, events)
    assert len(each) == 1, each
    return each[0]


# When it is done


def test_done_when_all_are_new_and_available() -> None:
    numbers = {"replicas": 2, "updatedReplicas": 2, "readyReplicas": 2, "availableReplicas": 2}
    found = judge(Snapshot(deployment(wanted=2, **numbers), SETS, [pod(ready=True)]))
    assert found.done and not found.waiting_for and found.status.revision == 2


@pytest.mark.parametrize(
    ("given", "waits_for"),
    [
        ({"seen": False, "replicas": 2, "updatedReplicas": 2, "availableReplicas": 2}, "the controller to see"),
        ({"replicas": 2, "updatedReplicas": 1, "availableReplicas": 2}, "1 of 2 pods of the new template"),
        ({"replicas": 3, "updatedReplicas": 2, "availableReplicas": 3}, "1 pods of the old template"),
        ({"replicas": 2, "updatedReplicas": 2, "availableReplicas": 1}, "1 of 2 pods are available"),
        ({"image": "web:3", "replicas": 2, "updatedReplicas": 2, "availableReplicas": 2}, "its ReplicaSet to be made"),
    ],
)
def test_what_a_rollout_still_waits_for(given: Object, waits_for: str) -> None:
    found = judge(Snapshot(deployment(wanted=2, **given), SETS, []))
    assert not found.done and waits_for in found.waiting_for


def test_a_deployment_of_no_replicas_is_done() -> None:
    assert judge(Snapshot(deployment(wanted=0), SETS, [])).done


# What is nobody's fault


@pytest.mark.parametrize(
    "found",
    [
        pod(state=waiting("ContainerCreating"), phase="Pending"),
        pod(state=waiting("PodInitializing"), first={"name": "i", "state": {"running": {}}}),
        pod(state=waiting("PodInitializing"), first={"name": "i", "state": {"terminated": {"exitCode": 0}}}),
        pod(state={"running": {}}),
        pod(state={"running": {}}, ready=True),
        pod(state=waiting("ImagePullBackOff"), leaving=True),
    ],
    ids=["creating", "initialising", "initialised", "not probed yet", "ready", "leaving"],
)
def test_no_problem(found: Object) -> None:
    assert problems.of_pod(found) == []


@pytest.mark.parametrize(
    "said",
    [
        "Startup probe failed: HTTP probe failed with statuscode: 503",
        "Readiness probe failed: HTTP probe failed with statuscode: 503",
        'Readiness probe failed: Get "http://10.0.0.1:8080/ready": dial tcp 10.0.0.1:8080: connect: connection refused',
        "Readiness probe failed: ",
    ],
)
def test_a_slow_start_has_all_the_time_there_is(said: str) -> None:
    assert one(pod(state={"running": {}}), noted("Unhealthy", said)).patience == inf


def test_what_is_wrong_with_old_pods_does_not_count() -> None:
    broken = pod(1, state=waiting("CrashLoopBackOff"), last={"exitCode": 1}, restarts=9)
    found = judge(
        Snapshot(deployment(replicas=2, updatedReplicas=1), SETS, [broken, pod(2, state=waiting("ContainerCreating"))])
    )
    assert found.problems == () and [p.name for p in found.old] == ["web-h1-x"]


def test_a_pod_without_room_is_not_lost_while_another_is_leaving() -> None:
    lost = {
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": "0/1 nodes: 1 Insufficient cpu.",
    }
    stuck, leaving = pod(2, conditions=(lost,), phase="Pending"), pod(1, state={"running": {}}, leaving=True)
    assert judge(Snapshot(deployment(), SETS, [stuck, leaving])).problems[0].patience == inf
    assert judge(Snapshot(deployment(), SETS, [stuck])).problems[0].patience == 20


def test_a_mount_that_failed_and_then_worked() -> None:
    failed, pulling = noted("FailedMount", 'configmap "c" not found', container=""), noted("Pulling", "Pulling image")
    creating = pod(state=waiting("ContainerCreating"), phase="Pending")
    assert one(creating, failed).known.what.startswith("a volume needs a ConfigMap")
    assert problems.of_pod(creating, [failed, pulling]) == []


# What waiting does not mend


def test_a_container_that_crashes() -> None:
    crashed = pod(
        state=waiting("CrashLoopBackOff", "back-off 20s"), last={"exitCode": 3, "reason": "Error"}, restarts=2
    )
    found = one(crashed)
    assert "exit code 3 (Error)" in found.message and 0 < found.patience < 60


def test_a_container_that_has_crashed_for_long_is_not_waited_for() -> None:
    assert one(pod(state=waiting("CrashLoopBackOff"), last={"exitCode": 3}, restarts=7)).patience == 0


@pytest.mark.parametrize(
    ("last", "event", "what"),
    [
        ({"exitCode": 137, "reason": "OOMKilled"}, None, "more memory than its limit"),
        ({"exitCode": 0, "reason": "Completed"}, None, "comes to an end"),
        ({"exitCode": 143, "reason": "Error"}, "Liveness probe failed: connection refused", "liveness probe fails"),
        ({"exitCode": 137, "reason": "Error"}, "Startup probe failed: connection refused", "startup probe allows"),
        (
            {"exitCode": 1, "reason": "Error"},
            "Liveness probe failed: connection refused",
            "starts, ends, and is started again",
        ),
        (
            {"exitCode": 128, "reason": "StartError", "message": 'exec: "nope": executable file not found in $PATH'},
            None,
            "command is not in the image",
        ),
    ],
)
def test_why_a_container_crashes(last: Object, event: str | None, what: str) -> None:
    events = [noted("Unhealthy", event)] if event else []
    assert what in one(pod(state=waiting("CrashLoopBackOff"), last=last, restarts=2), *events).known.what


def test_an_image_keeps_its_clock_while_its_words_take_turns() -> None:
    said = noted("Failed", 'Failed to pull image "web:2": dial tcp: lookup docker.io: no such host')
    first = one(pod(state=waiting("ErrImagePull", "rpc error: no such host")), said)
    later = one(pod(state=waiting("ImagePullBackOff", 'Back-off pulling image "web:2"')), said)
    since: dict[tuple[str, str, str], float] = {}
    assert overdue([first], since, now=100) == []
    assert overdue([later], since, now=110) == []
    assert overdue([later], since, now=120) == [later]


def test_a_problem_that_was_over_and_came_back_is_the_same() -> None:
    found = one(pod(state=waiting("CrashLoopBackOff"), last={"exitCode": 1}, restarts=2))
    since: dict[tuple[str, str, str], float] = {}
    assert overdue([found], since, now=0) == []
    assert overdue([], since, now=15) == []  # it runs
    assert overdue([found], since, now=30) == [found]


@pytest.mark.parametrize(
    ("reason", "message", "what"),
    [
        ("CreateContainerConfigError", 'configmap "settings" not found', "ConfigMap that is not there"),
        ("CreateContainerConfigError", 'secret "key" not found', "Secret that is not there"),
        ("CreateContainerConfigError", "container has runAsNonRoot and image will run as root", "runs as root"),
        ("InvalidImageName", "couldn't parse image reference", "name is none"),
        ("ErrImageNeverPull", 'Container image "web" is not present with pull policy of Never', "forbids to fetch it"),
        ("ErrImagePull", "manifest unknown: manifest unknown", "has none of that name"),
        ("ErrImagePull", "pull access denied, repository does not exist", "has none of that name"),
        ("ImagePullBackOff", "unauthorized: authentication required", "does not give it"),
        ("ImagePullBackOff", "no match for platform in manifest: not found", "for the node's processor"),
    ],
)
def test_what_a_container_waits_for(reason: str, message: str, what: str) -> None:
    assert what in one(pod(state=waiting(reason, message), phase="Pending")).known.what


@pytest.mark.parametrize(
    ("message", "what"),
    [
        ("0/2 nodes are available: 1 Insufficient nvidia.com/gpu, 1 node(s) had taint {a: }", "no node has a free GPU"),
        ("0/2 nodes are available: 2 Insufficient cpu.", "as much left"),
        ("0/2 nodes are available: 2 node(s) didn't match Pod's node affinity/selector.", "carries the labels"),
        ("0/2 nodes are available: 2 node(s) didn't match pod topology spread constraints.", "spread as demanded"),
        (
            "0/1 nodes are available: 1 node(s) had taint {node.kubernetes.io/unschedulable: }, that the pod didn't tolerate.",
            "a taint",
        ),
        ('persistentvolumeclaim "models" not found', "PersistentVolumeClaim that is not there"),
    ],
)
def test_why_no_node_takes_it(message: str, what: str) -> None:
    lost = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
    assert what in one(pod(conditions=(lost,), phase="Pending")).known.what


def test_a_probe_that_asks_for_what_is_not_there() -> None:
    found = one(
        pod(state={"running": {}}), noted("Unhealthy", "Readiness probe failed: HTTP probe failed with statuscode: 404")
    )
    assert found.patience < 60 and "readiness probe asks" in found.known.what


@pytest.mark.parametrize(
    ("condition", "what", "patience"),
    [
        (
            {
                "type": "ReplicaFailure",
                "status": "True",
                "reason": "FailedCreate",
                "message": "forbidden: exceeded quota: q",
            },
            "quota",
            15,
        ),
        ({"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}, "has given it up", 0),
    ],
)
def test_what_the_deployment_itself_says(condition: Object, what: str, patience: float) -> None:
    found = judge(Snapshot(deployment(conditions=(condition,)), SETS, [])).problems
    assert len(found) == 1 and what in found[0].known.what and found[0].patience == patience


def test_that_kubernetes_gave_up_before_the_latest_change_does_not_count() -> None:
    given_up = {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}
    assert judge(Snapshot(deployment(seen=False, conditions=(given_up,)), SETS, [])).problems == ()


def test_a_paused_rollout_is_not_waited_for() -> None:
    paused = deployment()
    paused["spec"]["paused"] = True
    assert judge(Snapshot(paused, SETS, [])).problems[0].patience == 0


# Revisions


def test_the_current_revision_is_told_by_its_template() -> None:
    assert revisions.current(deployment("web:1"), SETS) is SETS[0]
    assert revisions.current(deployment("web:3"), SETS) is None
    assert "pod-template-hash" in SETS[0]["spec"]["template"]["metadata"]["labels"], "it was looked at, not changed"


def test_back_is_the_one_before_or_the_one_of_a_number() -> None:
    sets = [replica_set(3, "web:3"), SETS[1], SETS[0]]
    assert revisions.previous(deployment("web:3"), sets) is SETS[1]
    assert revisions.previous(deployment("web:3"), sets, 1) is SETS[0]
    assert revisions.template(SETS[0]) == template("web:1")


@pytest.mark.parametrize(("sets", "to"), [(SETS[1:], None), (SETS, 7), (SETS, 2)])
def test_back_to_what_is_not_there(sets: list[Object], to: int | None) -> None:
    with pytest.raises(CourseError, match="Deployment web has no revision"):
        revisions.previous(deployment("web:2"), sets, to)


def test_numbers_that_the_api_leaves_out_are_0() -> None:
    found = rollout.status(deployment(wanted=3))
    assert (found.wanted, found.updated, found.ready, found.available, found.total) == (3, 0, 0, 0, 0)


def test_the_readiness_probe_of_a_container_that_was_killed_is_not_why() -> None:
    events = [
        noted("Unhealthy", "Liveness probe failed: refused"),
        noted("Unhealthy", "Readiness probe failed: refused"),
    ]
    killed = pod(state=waiting("CrashLoopBackOff"), last={"exitCode": 137, "reason": "Error"}, restarts=2)
    assert "liveness probe fails" in one(killed, *events).known.what
