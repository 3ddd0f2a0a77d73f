"""The exercise right-size: what a server used under load, and the requests and limits that a learner makes of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pandas as pd

from course_lib import waits
from course_lib.cluster import Cluster, Deployer, manifests, serving, usage
from course_lib.cluster.api import Object
from course_lib.errors import CourseError
from course_lib.exercises import cluster_checks as checks
from course_lib.exercises import cluster_load as loads
from course_lib.exercises import cluster_scenes as scenes
from course_lib.exercises.cluster_checks import require
from course_lib.lab.exercise import STARTERS, NotYet

NAME = "right-size"
SERVER = STARTERS / "4.4.5" / NAME / "server.yaml"
#: Chats a second: some 150m of CPU.
RATE = 8
#: The metrics API gives the mean of some 15 s: what is younger holds some of the time before the load.
FULL = 20.0
#: What is asked of an answer, in multiples of the most that was used under the load.
LEAST_REQUEST, MOST_REQUEST, LEAST_CPU_LIMIT, LEAST_MEMORY_LIMIT, MOST_MEMORY_LIMIT = 0.9, 2.0, 1.5, 1.1, 3.0
#: Replicas that have to fit an empty node.
FIT = 4
#: With the new limits 95 of 100 answers may take so many times what they took with more than enough, or so many seconds: a
#: container that is held up at its limit for good has a queue that grows, and takes many.
PATIENCE, AT_LEAST = 15, 1.0

Sizes = Mapping[str, Mapping[str, str]]


@dataclass(frozen=True)
class Measured:
    """A server under load, with more than enough of everything."""

    frame: pd.DataFrame
    """One row a measurement of the metrics API: at (seconds after the load began), cpu (cores), memory (bytes)."""
    within: float
    """Seconds within which 95 of 100 chats were answered."""

    @property
    def cpu(self) -> float:
        """The most, in cores."""
        return float(self._loaded["cpu"].max())

    @property
    def memory(self) -> float:
        """The most, in bytes."""
        return float(self._loaded["memory"].max())

    @property
    def _loaded(self) -> pd.DataFrame:
        return self.frame[self.frame["at"] >= FULL]


_measured: dict[str, Measured] = {}


def usage_under_load() -> pd.DataFrame:
    """What the server of the exercise uses while nobody asks and under load, as the metrics API has it: one row a measurement,
    with at (seconds after the load began), cpu (cores) and memory (bytes). Measured once a session, which takes a minute and a half."""
    try:
        return measured().frame.copy()
    except NotYet as error:  # the course's own server: no answer of a learner's is judged here
        raise CourseError(error.seen, do=f"Look at {error.look}.") from None


def measured() -> Measured:
    """The measurement, made when it is first asked for."""
    cluster = scenes.ready_cluster()
    if cluster.name not in _measured:
        cluster.wait_metrics()
        with scenes.room(cluster, NAME) as deployer:
            address = _deploy(cluster, deployer, manifests.read(SERVER))
            _measured[cluster.name] = _measure(deployer, address, rest=True, rows=2)
    return _measured[cluster.name]


def require_right_size(right_size: Callable[[pd.DataFrame], Sizes]) -> dict[str, object]:
    """Asks a learner's function for requests and limits, gives them to the server, and brings the same load again.

    Raises:
        NotYet: they are too small, too large, or the server does badly with them.
    """
    require(
        callable(right_size),
        f"the answer is {right_size!r}",
        expected="a function of what was measured",
        look="def right_size(measured)",
    )
    before = measured()
    sizes = right_size(before.frame.copy())
    require_bands(amounts(sizes), before)
    cluster, server = scenes.ready_cluster(), manifests.read(SERVER)
    with scenes.room(cluster, NAME) as deployer:
        resized = deepcopy(server)
        checks.server(checks.named(resized, "Deployment", serving.DEPLOYMENT))["resources"] = sizes
        fits = _fits(deployer, amounts(sizes)["requests"])
        require(
            fits >= FIT,
            f"{fits} such replicas fit an empty node",
            expected=f"at least {FIT}",
            look="requests: they are what the scheduler sets aside",
        )
        address = _deploy(cluster, deployer, resized)
        after = _measure(deployer, address, rest=False, rows=1)
        _require_does_well(deployer, before, after)
        return {
            "used under the load": f"{after.cpu * 1000:.0f}m of CPU, {after.memory / 2**20:.0f} MiB",
            "requests": _words(sizes["requests"]),
            "limits": _words(sizes["limits"]),
            "95 of 100 within": f"{after.within * 1000:.0f} ms (before: {before.within * 1000:.0f})",
            "replicas that fit a node": fits,
        }


def _deploy(cluster: Cluster, deployer: Deployer, server: list[Object]) -> str:
    deployer.apply(server)
    deployer.wait(serving.DEPLOYMENT)
    address = cluster.address(scenes.EXERCISE_PORT)
    checks.require_answers(deployer, address)
    return address


def _measure(deployer: Deployer, address: str, *, rest: bool, rows: int) -> Measured:
    """Brings load until there are measurements that hold nothing else.

    Args:
        rest: wait first for one that holds nothing but rest: neither load, nor the server's start, which costs much CPU.
        rows: how many measurements of the load.
    """
    seen: dict[datetime, usage.Usage] = {}

    def full(since: datetime, number: int) -> None:
        seen.update((one.measured, one) for one in deployer.used(serving.DEPLOYMENT).values())
        found = sum((one - since).total_seconds() >= FULL for one in seen)
        if found < number:
            raise waits.NotYet(f"{found} of {number} measurements")

    def wait(what: str, number: int) -> datetime:
        since, do = datetime.now(UTC), "Look at the metrics server: `kubectl top pods --all-namespaces`."
        waits.until(lambda: full(since, number), what=what, timeout=180, every=1, do=do)
        return since

    quiet = wait("figures of a server at rest", 1) if rest else datetime.now(UTC) - timedelta(seconds=FULL)
    with loads.chats(deployer, address, rate=RATE) as load:
        began = wait("figures of the load", rows)
    refused = loads.unanswered(load.sent)
    require(not refused, f"of {len(load.sent)} chats {refused}", expected="an answer to each", look="limits")
    rows_of = [
        {"at": round((at - began).total_seconds(), 1), "cpu": one.cpu, "memory": one.memory}
        for at, one in sorted(seen.items())
        if (at - quiet).total_seconds() >= FULL
    ]
    return Measured(pd.DataFrame(rows_of), loads.quantile(load.sent, 0.95))


def amounts(sizes: object) -> dict[str, dict[str, float]]:
    """Requests and limits in cores and bytes.

    Raises:
        NotYet: something is missing, or is no amount.
    """
    found: dict[str, dict[str, float]] = {}
    for which in ("requests", "limits"):
        for resource in ("cpu", "memory"):
            said = checks.part(sizes, which, resource)
            place = f"{which}.{resource}"
            require(said is not None, f"your function gives no {place}: {sizes!r}", expected='a dictionary as manifests have it: {"requests": {"cpu": …, "memory": …}, "limits": {…}}', look="return")  # fmt: skip
            try:
                found.setdefault(which, {})[resource] = usage.amount(said)
            except CourseError as error:
                raise NotYet(f"{place}: {error.what}", expected="an amount", look=error.do) from None
    return found


def require_bands(found: Mapping[str, Mapping[str, float]], before: Measured) -> None:
    """Requests are what is used and not much more; limits leave room.

    Raises:
        NotYet: one is not so.
    """
    used = {"cpu": before.cpu, "memory": before.memory}
    for resource, most in used.items():
        said, seen = found["requests"][resource], _amount(resource, most)
        words = f"requests.{resource} is {_amount(resource, said)}, and up to {seen} was used under the load"
        require(said >= LEAST_REQUEST * most, words, expected="no less than is used: else the scheduler puts more onto a node than it can bear", look="which rows of the measurement hold nothing but load")  # fmt: skip
        require(said <= MOST_REQUEST * most, words, expected=f"at most {MOST_REQUEST:g} times as much: what is set aside, nobody else can use", look="the unit, and the room you leave")  # fmt: skip
    for resource, least in (("cpu", LEAST_CPU_LIMIT), ("memory", LEAST_MEMORY_LIMIT)):
        said, most = found["limits"][resource], used[resource]
        words = f"limits.{resource} is {_amount(resource, said)}, and up to {_amount(resource, most)} was used"
        why = "a mean of 15 s hides its peaks" if resource == "cpu" else "one byte more, and the container is killed"
        require(said >= least * most, words, expected=f"at least {least:g} times as much: {why}", look=f"limits.{resource}")  # fmt: skip
    most = MOST_MEMORY_LIMIT * before.memory
    said = found["limits"]["memory"]
    require(said <= most, f"limits.memory is {_amount('memory', said)}", expected=f"at most {MOST_MEMORY_LIMIT:g} times what was used: a leak should meet it before the node's end", look="limits.memory")  # fmt: skip


def _require_does_well(deployer: Deployer, before: Measured, after: Measured) -> None:
    """With the new sizes it was neither killed nor held up.

    Raises:
        NotYet: it was.
    """
    for pod in deployer.pods(serving.DEPLOYMENT):
        require(pod.restarts == 0, f"{pod.name} {pod.words()}", expected="no restart under the load", look="limits.memory: was it OOMKilled?")  # fmt: skip
    most = max(PATIENCE * before.within, AT_LEAST)
    require(
        after.within <= most,
        f"95 of 100 answers take {after.within * 1000:.0f} ms, and took {before.within * 1000:.0f} ms before",
        expected=f"at most {most * 1000:.0f} ms",
        look="limits.cpu: at its limit a container stands still until the next tenth of a second",
    )


def _fits(deployer: Deployer, requests: Mapping[str, float]) -> int:
    """Replicas of a size that an empty node takes: the smallest of the cluster's."""
    nodes = [checks.part(one, "status", "allocatable") for one in deployer.api.objects("v1", "Node")]
    return min(int(usage.amount(one[key]) // max(requests[key], 1e-9)) for one in nodes for key in ("cpu", "memory"))


def _amount(resource: str, value: float) -> str:
    return f"{value * 1000:.0f}m" if resource == "cpu" else f"{value / 2**20:.0f}Mi"


def _words(sizes: Mapping[str, str]) -> str:
    return ", ".join(f"{key} {value}" for key, value in sizes.items())
