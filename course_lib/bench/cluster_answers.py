"""Who answered, by the servers' own log lines: in particular, pods that were already on their way out.

A client can't see it, and a counter that is read now and then misses the end. So each pod's log is followed until the pod is gone: it
has a line for every answer, with its time. The API says when the pod was told to go, to the second; counted is what was answered
after that second was over, so no less was.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import TracebackType

from course_lib import shell
from course_lib.cluster import Deployer, KindCluster
from course_lib.cluster.api import Object
from course_lib.cluster.events import moment

ROUTE = "/predict"


@dataclass
class Log:
    """A server's answers with 200 on ROUTE, and when it heard that it has to go."""

    answers: list[datetime] = field(default_factory=list)
    leaving: datetime | None = None
    """SIGTERM: the end of preStop."""


def parse(text: str) -> Log:
    """The server's log: one JSON object a line; others write there, too, as when it is killed."""
    found = Log()
    for line in text.splitlines():
        try:
            said = json.loads(line)
            at = datetime.fromisoformat(said["time"])
        except (ValueError, LookupError, TypeError):
            continue
        if said.get("message") in ("leaving", "draining") and found.leaving is None:
            found.leaving = at
        elif said.get("message") == "request" and said.get("route") == ROUTE and said.get("status") == 200:
            found.answers.append(at)
    return found


def told_to_go(pod: Object) -> datetime | None:
    """When a pod was deleted, cut to the second: its deletionTimestamp is when its grace is over."""
    meta = pod["metadata"]
    if "deletionTimestamp" not in meta:
        return None
    return moment(meta["deletionTimestamp"]) - timedelta(seconds=meta.get("deletionGracePeriodSeconds") or 0)


class Followed:
    """Follows the logs of pods from entering the block until each pod is gone.

    Args:
        names: of the pods.
    """

    def __init__(self, cluster: KindCluster, deployer: Deployer, names: Iterable[str]) -> None:
        self._cluster, self._namespace, self._names = cluster, deployer.namespace, sorted(names)
        self._began = datetime.now(UTC)
        self._pool = ThreadPoolExecutor(max(1, len(self._names)))
        self._lines: dict[str, Future[shell.Completed]] = {}
        self._told: dict[str, datetime] = {}

    def __enter__(self) -> Followed:
        self._began = datetime.now(UTC)
        for name in self._names:
            self._lines[name] = self._pool.submit(self._read, name, "--follow", timeout=300)
        return self

    def __exit__(self, *what: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._pool.shutdown(wait=what[0] is None, cancel_futures=True)

    def look(self, pods: Iterable[Object]) -> None:
        """Takes note of pods that are on their way out."""
        for one in pods:
            if at := told_to_go(one):
                self._told.setdefault(one["metadata"]["name"], at)

    def counted(self, still_there: Iterable[str]) -> dict[str, int]:
        """Answers by the logs since the block was entered, and those among them of pods on their way out; for after the block.

        Args:
            still_there: the pods that answer now; their logs are read, too.
        """
        logs = {name: parse(said.result().stdout) for name, said in self._lines.items()}
        logs |= {name: parse(self._read(name, timeout=60).stdout) for name in still_there}
        mine = {name: [at for at in log.answers if at >= self._began] for name, log in logs.items()}
        in_pre_stop = after_sigterm = 0
        for name, told in self._told.items():
            leaving = logs[name].leaving if name in logs else None
            late = [at for at in mine.get(name, ()) if at >= told + timedelta(seconds=1)]
            before = [at for at in late if leaving is None or at < leaving]
            in_pre_stop += len(before)
            after_sigterm += len(late) - len(before)
        return {
            "answered_by_logs": sum(map(len, mine.values())),
            "terminating_pods": len(self._told),
            "answered_in_pre_stop": in_pre_stop,
            "answered_after_sigterm": after_sigterm,
        }

    def _read(self, pod: str, *how: str, timeout: float) -> shell.Completed:
        return self._cluster.kubectl(
            "logs", f"--namespace={self._namespace}", *how, pod, show=False, check=False, timeout=timeout
        )
