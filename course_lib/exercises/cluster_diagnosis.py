"""The exercise from-events: Deployments that are broken for real, told apart by nothing but what Kubernetes noted."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from course_lib import shell, waits
from course_lib.cluster import Deployer, serving
from course_lib.cluster.api import Object
from course_lib.cluster.events import Event
from course_lib.exercises import cluster_scenes as scenes
from course_lib.exercises.cluster_checks import require
from course_lib.lab.exercise import NotYet

NAME = "from-events"
#: What a learner's function may say of a Deployment, and what it means.
WORDS = {
    "well": "nothing is wrong with it",
    "image": "its image can't be had",
    "missing": "a ConfigMap or a Secret that it needs is not there",
    "no room": "no node has what it requests",
    "crashes": "its program ends, and is started again and again",
    "probe": "its program runs, and does not answer its liveness or readiness probe",
}
Diagnose = Callable[[list[Event]], Mapping[str, str]]


@dataclass(frozen=True)
class _Ailment:
    """One way to be broken."""

    word: str
    told_by: str
    """A pattern in the events (`Reason: message`) that has come when all that tells it is there."""
    container: dict[str, Any] = field(default_factory=dict)
    """What differs from a container that is well."""
    pod: dict[str, Any] = field(default_factory=dict)


_FAILS = {"exec": {"command": ["false"]}, "periodSeconds": 1, "failureThreshold": 2}
_AILMENTS = (
    _Ailment("well", "Started: "),
    _Ailment("image", "BackOff: Back-off pulling", {"image": "registry.invalid/assistant:2"}),
    _Ailment("image", "ErrImageNeverPull: ", {"image": "assistant:2", "imagePullPolicy": "Never"}),
    _Ailment("missing", "Failed: Error: configmap", {"envFrom": [{"configMapRef": {"name": "assistant-settings"}}]}),
    _Ailment(
        "missing",
        "FailedMount: .*secret",
        {"volumeMounts": [{"name": "key", "mountPath": "/key"}]},
        {"volumes": [{"name": "key", "secret": {"secretName": "assistant-key"}}]},
    ),
    _Ailment("no room", "FailedScheduling: .*Insufficient memory", {"resources": {"requests": {"memory": "900Ti"}}}),
    _Ailment("no room", "FailedScheduling: .*Insufficient nvidia", {"resources": {"limits": {"nvidia.com/gpu": "64"}}}),
    _Ailment("crashes", "BackOff: Back-off restarting", {"command": ["sh", "-c", "exit 3"]}),
    # Killed so often that its end is what the last of its events speak of, and not the probe.
    _Ailment("probe", "BackOff: Back-off restarting", {"livenessProbe": _FAILS}),
    _Ailment("probe", "Unhealthy: Readiness", {"readinessProbe": _FAILS}),
)


def show_events() -> list[Event]:
    """What is noted while some Deployments try to start, the oldest first; they are gone again when this returns."""
    with _broken() as (deployer, _):
        return deployer.events()


def require_told(diagnose: Diagnose) -> dict[str, object]:
    """Starts Deployments with names that nobody knows before, and compares what is wrong with them with what a learner's
    function makes of their events.

    Raises:
        NotYet: it says something else of one of them.
    """
    require(
        callable(diagnose), f"the answer is {diagnose!r}", expected="a function of a list of events", look="your def"
    )
    with _broken() as (deployer, wrong):
        events = deployer.events()
    said = diagnose(list(events))
    require(
        isinstance(said, Mapping),
        f"your function returns {type(said).__name__}",
        expected="a dictionary from the names of Deployments to words",
        look="what stands behind `return`",
    )
    known = sorted(map(str, said))
    for name, word in wrong.items():
        mine = said.get(name)
        require(
            mine is not None,
            f"nothing is said of Deployment {name}, only of {', '.join(known) or 'nobody'}",
            expected="a word for each Deployment; its pods are called after it, with two more parts behind",
            look="how you make the name of a Deployment out of the name of a pod",
        )
        require(
            mine in WORDS,
            f"of {name} you say {mine!r}",
            expected=f"one of {', '.join(map(repr, WORDS))}",
            look="the words",
        )
        if mine != word:
            about = [one for one in events if re.search(rf"/{re.escape(name)}\b", one.object)]
            lines = dict.fromkeys(f"{one.type} {one.words()}" for one in about)
            raise NotYet(
                f"of {name} you say {mine!r}: {WORDS[str(mine)]}. Its events:\n" + "\n".join(f"  {one}" for one in lines),
                expected="the word that fits these events",
                look="reasons that several troubles share: there the message tells them apart, or another event does",
            )  # fmt: skip
    return {"Deployments": len(wrong), "told by their events": ", ".join(dict.fromkeys(wrong.values()))}


@contextmanager
def _broken() -> Iterator[tuple[Deployer, dict[str, str]]]:
    """Deployments, all but one of them broken, once all that tells how is noted; and the word for each, by name."""
    ailments = dict(zip(_names(len(_AILMENTS)), random.sample(_AILMENTS, len(_AILMENTS)), strict=True))
    with scenes.room(scenes.ready_cluster(), NAME) as deployer:
        shell.announce(f"# {len(ailments)} Deployments with names by chance")
        deployer.apply([_deployment(name, one) for name, one in ailments.items()])

        def probe() -> None:
            noted = deployer.events()
            if waiting := [name for name, one in ailments.items() if not _told(name, one, noted)]:
                raise waits.NotYet(f"nothing telling yet of {', '.join(waiting)}")

        waits.until(probe, what="what Kubernetes notes of each Deployment", timeout=300, every=0.2)
        yield deployer, {name: one.word for name, one in ailments.items()}


def _told(name: str, ailment: _Ailment, noted: Sequence[Event]) -> bool:
    mine = (f"{one.reason}: {one.message}" for one in noted if one.object.startswith(f"Pod/{name}-"))
    return any(re.search(ailment.told_by, words, re.DOTALL) for words in mine)


def _names(count: int) -> list[str]:
    """Names by chance, of one, two and three parts."""
    first, second = (
        ["amber", "birch", "coral", "delta", "ember", "fjord", "grove", "heron", "islet", "larch"],
        "klmnprst",
    )
    return ["-".join([word, *random.sample(second, n % 3)]) for n, word in enumerate(random.sample(first, count))]


def _deployment(name: str, ailment: _Ailment) -> Object:
    labels = {"app": name}
    container = {
        "name": "main",
        "image": serving.IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "command": ["sleep", "infinity"],
    }
    pod = {
        "terminationGracePeriodSeconds": 0,
        "automountServiceAccountToken": False,
        "containers": [container | ailment.container],
        **ailment.pod,
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }
