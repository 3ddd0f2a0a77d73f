"""The course's inference server on a cluster: its key, its address, and the requests that are counted."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import httpx

from course_lib import waits
from course_lib.cluster.deployer import Deployer
from course_lib.errors import CourseError

NAMESPACE = "inference"
DEPLOYMENT = "inference"
SERVICE = "inference"
KEYS = "inference-keys"
PORT = 8080
#: The image's name in the manifests; an overlay says which one it is.
IMAGE = "inference-server:local"
_REQUESTS = "http_requests_total"
_NOBODY = "Is a pod ready, and does the Service find it? `kubectl get endpoints` lists who it sends to."


def make_key(deployer: Deployer) -> None:
    """Makes the Secret with the server's key, and its namespace, where they are missing.

    A key stands in no file: neither in the manifests nor on this machine.
    """
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": deployer.namespace}}
    if deployer.api.find("v1", "Namespace", deployer.namespace) is None:
        deployer.apply([namespace])
    if deployer.api.find("v1", "Secret", KEYS, deployer.namespace):
        return
    content = {"keys": f"lab:{secrets.token_hex(16)}"}
    deployer.apply(
        [{"apiVersion": "v1", "kind": "Secret", "metadata": {"name": KEYS}, "type": "Opaque", "stringData": content}]
    )


def headers(deployer: Deployer) -> dict[str, str]:
    """What a client sends to be let in.

    Raises:
        CourseError: there is no key yet.
    """
    found = deployer.api.find("v1", "Secret", KEYS, deployer.namespace)
    if found is None:
        raise CourseError(f"there is no Secret {KEYS}", do="Make one: `cluster.make_key(deployer)`.")
    line = base64.b64decode(found["data"]["keys"]).decode().splitlines()[0]
    return {"Authorization": f"Bearer {line.partition(':')[2] or line}"}


@dataclass(frozen=True)
class Spread:
    """Requests by the pod that counted them."""

    sent: int
    by_pod: dict[str, float]

    def rows(self) -> list[dict[str, object]]:
        """A table of it."""
        return [{"pod": pod, "requests": int(number)} for pod, number in sorted(self.by_pod.items())]


def counted(deployer: Deployer, route: str = "/predict") -> dict[str, float]:
    """How many requests to a route each pod has answered since it started, by its own count."""
    return deployer.counted(DEPLOYMENT, _REQUESTS, port=PORT, route=route)


def ask_many(deployer: Deployer, address: str, rows: Sequence[Sequence[float]], count: int) -> Spread:
    """Sends predictions, each on a connection of its own, and counts by the pods' own counters who answered them.

    Before that come some that are not counted, until each pod has answered one, for 15 s at most: the nodes know of a new pod a
    moment after the Service lists it. A pod that is never asked shows in the counts.

    Args:
        address: of the Service, as this machine reaches it.
        rows: what is predicted, one after the other.

    Raises:
        CourseError: one was not answered with 200.
    """
    key = headers(deployer)
    with suppress(waits.WaitTimeout):
        waits.until(lambda: _known(deployer, address, rows[0], key), what="each pod to have answered", timeout=30)
    before = counted(deployer)
    for number in range(count):
        predict(address, rows[number % len(rows)], key)
    after = counted(deployer)
    return Spread(count, {pod: value - before.get(pod, 0) for pod, value in after.items()})


def _known(deployer: Deployer, address: str, row: Sequence[float], key: dict[str, str]) -> None:
    """Some predictions; not yet, while a pod has answered none."""
    for _ in range(10):
        predict(address, row, key)
    if idle := [pod for pod, value in counted(deployer).items() if not value]:
        raise waits.NotYet(f"{', '.join(idle)} answered none")


def wait_for_service(address: str, *, timeout: float = 60) -> None:
    """Waits until a server answers behind a Service: each node makes its rules a moment after a pod is ready.

    Args:
        address: of the Service, as this machine reaches it.

    Raises:
        CourseError: nobody has answered in time.
    """

    def probe() -> None:
        try:
            httpx.get(f"{address}/health", timeout=3, trust_env=False)
        except httpx.HTTPError as error:
            raise waits.NotYet(str(error) or type(error).__name__) from None

    waits.until(probe, what=f"an answer at {address}", timeout=timeout, every=0.2, do=_NOBODY)


def predict(address: str, row: Sequence[float], with_headers: dict[str, str], *, timeout: float = 30) -> dict[str, Any]:
    """One prediction on a connection of its own: a Service draws a pod for every connection.

    Raises:
        CourseError: no answer, or another than 200.
    """
    try:
        answer = httpx.post(
            f"{address}/predict", json={"inputs": list(row)}, headers=with_headers, timeout=timeout, trust_env=False
        )
    except httpx.HTTPError as error:
        raise CourseError(
            f"{address} does not answer", why=str(error) or type(error).__name__,
            do=_NOBODY,
        ) from None  # fmt: skip
    if answer.status_code != 200:
        raise CourseError(f"{address} answered {answer.status_code}", why=answer.text[:300])
    return dict(answer.json())
