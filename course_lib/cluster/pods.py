"""Pods, as a person looks at them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from course_lib.cluster.api import Api, Object
from course_lib.cluster.events import moment
from course_lib.cluster.refusals import ApiError

#: The label by which a Deployment tells the pods of one template from those of another.
TEMPLATE_HASH = "pod-template-hash"


@dataclass(frozen=True)
class Pod:
    """One pod."""

    name: str
    phase: str
    """Pending, Running, Succeeded, Failed, Unknown."""
    ready: bool
    """Whether Services send it requests."""
    restarts: int
    """Of all its containers together."""
    node: str
    ip: str
    image: str
    """Of its first container."""
    started: datetime | None
    """When its node took it, UTC."""
    conditions: dict[str, bool]
    """PodScheduled, Initialized, ContainersReady, Ready."""
    reason: str
    """The most telling word on its state, as in `kubectl get pods`."""
    terminating: bool
    template: str
    """The hash of the template that it was made from: pods of one ReplicaSet share it."""

    def words(self) -> str:
        """Its state in a line."""
        ready = "" if self.terminating or self.reason != "Running" else ", ready" if self.ready else ", not ready"
        again = f", restarted {self.restarts} times" if self.restarts else ""
        return f"{self.reason}{ready}{again}{f' on {self.node}' if self.node else ''}"


def pods(api: Api, namespace: str, labels: str = "") -> list[Pod]:
    """The pods of a namespace that carry some labels, by name."""
    return sorted((of(one) for one in api.objects("v1", "Pod", namespace, labels=labels)), key=lambda one: one.name)


def of(found: Object) -> Pod:
    """A pod as the API has it."""
    status, meta = found.get("status", {}), found["metadata"]
    conditions = {one["type"]: one["status"] == "True" for one in status.get("conditions") or []}
    return Pod(
        name=meta["name"],
        phase=status.get("phase", "Unknown"),
        ready=conditions.get("Ready", False),
        restarts=sum(one.get("restartCount", 0) for _, one in containers(found)),
        node=found["spec"].get("nodeName", ""),
        ip=status.get("podIP", ""),
        image=found["spec"]["containers"][0]["image"],
        started=moment(status["startTime"]) if "startTime" in status else None,
        conditions=conditions,
        reason=_reason(found),
        terminating="deletionTimestamp" in meta,
        template=(meta.get("labels") or {}).get(TEMPLATE_HASH, ""),
    )


def containers(found: Object) -> Iterator[tuple[bool, Object]]:
    """(whether it comes before the others, its status) of each container of a pod."""
    for field in ("initContainerStatuses", "containerStatuses"):
        for status in found.get("status", {}).get(field) or []:
            yield field.startswith("init"), status


def logs(api: Api, namespace: str, pod: str, *, container: str = "", lines: int = 20, previous: bool = False) -> str:
    """The last log lines of a container; empty where it has not run (or not run before), or is gone.

    Args:
        previous: of the run before this one.
    """
    query = {"tailLines": lines, "previous": str(previous).lower()} | ({"container": container} if container else {})
    try:
        said = api.read(f"/api/v1/namespaces/{namespace}/pods/{pod}/log", query)
    except ApiError as error:
        # 400 is also the answer where a container of several has to be named.
        if error.status == 404 or (error.status == 400 and not re.search("must be specified|is not valid", error.why)):
            return ""
        raise
    # Programs colour their lines, and draw them anew.
    text = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", said.decode(errors="replace")).rstrip()
    # The kubelet answers so, with 200, where it has cleared the run away already.
    return "" if text.startswith("unable to retrieve container logs for ") else text


def selector(found: Object) -> str:
    """The label selector of a Deployment, a ReplicaSet or a Job, as a query takes it."""
    wanted = found["spec"]["selector"]
    parts = [f"{key}={value}" for key, value in (wanted.get("matchLabels") or {}).items()]
    for one in wanted.get("matchExpressions") or []:
        key, values = one["key"], ",".join(one.get("values") or [])
        words = {
            "Exists": key,
            "DoesNotExist": f"!{key}",
            "In": f"{key} in ({values})",
            "NotIn": f"{key} notin ({values})",
        }
        parts.append(words[one["operator"]])
    return ",".join(parts)


def _reason(found: Object) -> str:
    """kubectl's column STATUS (printPod in pkg/printers/internalversion), without its rarer cases."""
    status = found.get("status", {})
    if "deletionTimestamp" in found["metadata"]:
        return "Terminating"
    for _, one in containers(found):
        state = one.get("state") or {}
        ended, waiting = state.get("terminated"), state.get("waiting")
        if waiting and waiting.get("reason") not in (None, "ContainerCreating", "PodInitializing"):
            return str(waiting["reason"])
        if ended and ended.get("exitCode"):
            return str(ended.get("reason") or f"ExitCode:{ended['exitCode']}")
    if status.get("reason"):
        return str(status["reason"])
    for condition in status.get("conditions") or []:
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return str(condition.get("reason") or "Pending")
    creating = status.get("phase") == "Pending" and found["spec"].get("nodeName")
    return "ContainerCreating" if creating else str(status.get("phase", "Unknown"))
