"""The exercise from-events, without a cluster: the reference answer on events as current Kubernetes words them."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime

import proofs
import pytest

from course_lib.cluster.events import Event
from course_lib.exercises import cluster_diagnosis

#: By word: events of a pod as Kubernetes words them since about 1.31, with containerd 2; on the tests' cluster they come as an older one words them.
CURRENT: dict[str, list[tuple[str, str]]] = {
    "image": [
        ("Failed", 'Failed to pull image "registry.invalid/assistant:2": failed to pull and unpack image "registry.invalid/assistant:2": failed to resolve reference "registry.invalid/assistant:2": dial tcp: lookup registry.invalid: no such host'),
        ("Failed", "Error: ErrImagePull"),
        ("BackOff", 'Back-off pulling image "registry.invalid/assistant:2": ErrImagePull: failed to pull and unpack image'),
        ("Failed", "Error: ImagePullBackOff"),
    ],
    "missing": [("Failed", 'Error: configmap "assistant-settings" not found')],
    "no room": [("FailedScheduling", "0/3 nodes are available: 1 node(s) had untolerated taint(s), 2 Insufficient memory. no new claims to deallocate, preemption: 0/3 nodes are available: 3 Preemption is not helpful for scheduling.")],
    "crashes": [("Created", "Created container: main"), ("Started", "Started container main"), ("BackOff", "Back-off restarting failed container main in pod web-1_ns(4c1e)")],
    "probe": [
        ("Unhealthy", "Liveness probe failed: "),
        ("Killing", "Container main failed liveness probe, will be restarted"),
        ("BackOff", "Back-off restarting failed container main in pod web-1_ns(4c1e)"),
    ],
    "well": [("Scheduled", "Successfully assigned ns/web to worker"), ("Pulled", 'Container image "inference-server:local" already present on machine')],
}  # fmt: skip


def event(about: str, reason: str, message: str) -> Event:
    return Event(datetime(2026, 11, 27, tzinfo=UTC), "Warning", about, "main", reason, message, 1)


def reference() -> Callable[[list[Event]], dict[str, str]]:
    """The function of the answer's cell, without the line that checks it."""
    cell = next(one.cell for one in proofs.cases("4.4.5") if (one.exercise, one.what) == ("from-events", "answer"))
    names: dict[str, Callable[[list[Event]], dict[str, str]]] = {}
    exec(re.sub(r"(?m)^lab\.check.*$", "", cell), names)
    return names["diagnose"]


def test_the_reference_answer_reads_a_current_cluster_too() -> None:
    events = [
        event(f"Pod/a-{word.replace(' ', '-')}-6d9f-x2k4p", reason, message)
        for word, noted in CURRENT.items()
        for reason, message in noted
    ]
    said = reference()([event("Deployment/a-well", "ScalingReplicaSet", "Scaled up"), *events])
    assert said == {f"a-{word.replace(' ', '-')}": word for word in CURRENT}
    assert set(CURRENT) == set(cluster_diagnosis.WORDS)


@pytest.mark.parametrize("answer", [None, {"web": "image"}])
def test_what_is_no_function_is_refused_before_anything_is_started(answer: object) -> None:
    with pytest.raises(cluster_diagnosis.NotYet, match="the answer is"):
        cluster_diagnosis.require_told(answer)  # type: ignore[arg-type]
