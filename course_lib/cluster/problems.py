"""What keeps a pod from getting ready, read from what the API says of it. Pure: the same for a live and a recorded pod."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import inf

from course_lib.cluster import pods, reasons
from course_lib.cluster.api import Object
from course_lib.cluster.events import Event

#: From here on a crashed container waits 160 s and more for its next start.
_CRASHES = 5
_MOUNTS = ("FailedMount", "FailedAttachVolume", "FailedMapVolume", "FailedCreatePodSandBox")
#: A container that was stopped by a signal, as the kubelet does when a probe has failed too often.
_SIGNALLED = (137, 143)


@dataclass(frozen=True)
class Problem:
    """Something that is not as it should be, now."""

    about: str
    """A pod's name, or a Deployment's."""
    container: str
    """Empty where it is about the whole."""
    reason: str
    """Kubernetes' word."""
    message: str
    """Kubernetes' words: from the status and from events."""
    held: bool = False
    """Something is on its way out that may make room."""
    last_straw: bool = False
    """So often already that no more waiting is worth it."""

    @cached_property
    def known(self) -> reasons.Reason:
        """What is known of it."""
        return reasons.of(self.reason, self.message)

    @property
    def patience(self) -> float:
        """Seconds for which it may still mend itself, from when it was first seen."""
        return inf if self.held else 0 if self.last_straw else self.known.patience

    @property
    def key(self) -> tuple[str, str, str]:
        """The same for the same problem a moment later: ErrImagePull and ImagePullBackOff take turns."""
        return (self.about, self.container, self.known.what)

    def words(self) -> str:
        """It in a line."""
        where = f"{self.about}, container {self.container}" if self.container else self.about
        return f"{where}: {self.reason}: {self.known.what}"


def of_pod(found: Object, events: Sequence[Event] = (), *, held: bool = False) -> list[Problem]:
    """What is wrong with a pod; nothing where it is ready, on its way, or on its way out.

    Args:
        found: the pod, as the API has it.
        events: about pods, the oldest first; without them less is known.
        held: pods of the same Deployment are terminating.
    """
    name, status = found["metadata"]["name"], found.get("status", {})
    mine = [one for one in events if one.object == f"Pod/{name}"]
    if "deletionTimestamp" in found["metadata"]:
        return []
    if status.get("phase") == "Failed":
        return [Problem(name, "", status.get("reason", "Failed"), status.get("message", ""))]
    for one in status.get("conditions") or []:
        if one["type"] == "PodScheduled" and one["status"] == "False":
            return [Problem(name, "", one.get("reason", "Unschedulable"), one.get("message", ""), held=held)]
    each = [_of_container(name, first, one, mine) for first, one in pods.containers(found)]
    found_in = [one for one in each if one]
    # An older one may be over: then something newer was noted, such as that the image is being pulled.
    if not found_in and mine and mine[-1].reason in _MOUNTS and not _all_started(found):
        return [Problem(name, "", mine[-1].reason, mine[-1].message)]
    return found_in


def _of_container(pod: str, first: bool, one: Object, events: Sequence[Event]) -> Problem | None:
    name, state = one["name"], one.get("state") or {}
    mine = [event for event in events if event.container in ("", name)]
    waiting, ended = state.get("waiting"), state.get("terminated")
    if waiting:
        reason, said = waiting.get("reason", ""), waiting.get("message", "")
        if reason in ("", "ContainerCreating", "PodInitializing"):
            return None
        if reason in ("ErrImagePull", "ImagePullBackOff"):
            return Problem(pod, name, reason, _joined(said, _last(mine, "Failed")))
        if last := (one.get("lastState") or {}).get("terminated"):
            return _crashed(pod, one, reason, last, said, mine)
        return Problem(pod, name, reason, said)
    if ended and not (first and ended.get("exitCode") == 0):
        return _crashed(pod, one, ended.get("reason", "Error"), ended, "", mine)
    # Of one that runs, only a failed probe is a problem.
    if "running" in state and not one.get("ready") and (said := _last(mine, "Unhealthy")):
        return Problem(pod, name, "Unhealthy", said)
    return None


def _crashed(pod: str, one: Object, reason: str, last: Object, said: str, events: Sequence[Event]) -> Problem:
    code, why = last.get("exitCode", 0), last.get("reason", "")
    words = f"its last run ended with exit code {code}{f' ({why})' if why else ''}"
    probes = [event for event in events if event.message.startswith(("Liveness", "Startup"))]
    probe = _last(probes, "Unhealthy") if code in _SIGNALLED and why != "OOMKilled" else ""
    message = _joined(words, last.get("message", ""), probe, said)
    return Problem(
        pod,
        one["name"],
        reason,
        message,
        last_straw=one.get("restartCount", 0) >= _CRASHES and reason == "CrashLoopBackOff",
    )


def _all_started(found: Object) -> bool:
    known = [one for _, one in pods.containers(found)]
    return bool(known) and all("waiting" not in (one.get("state") or {}) for one in known)


def _last(events: Sequence[Event], reason: str) -> str:
    return next((one.message for one in reversed(events) if one.reason == reason), "")


def _joined(*parts: str) -> str:
    return "\n".join(dict.fromkeys(part.strip() for part in parts if part.strip()))
