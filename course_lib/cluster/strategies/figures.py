"""What servers say of themselves between two looks: how many requests, how many of them failed, how long they took."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import httpx
from prometheus_client.parser import text_string_to_metric_families

from course_lib.cluster import serving
from course_lib.cluster.deployer import Deployer
from course_lib.cluster.port_forward import forward
from course_lib.errors import CourseError

_REQUESTS, _SECONDS = "http_requests_total", "http_request_duration_seconds_bucket"
#: (what it is, its label): a status or the upper bound of a bucket.
_Key = tuple[str, str]
#: The route of what is refused before it has one, such as a key that is not known.
_UNROUTED = "none"
#: Counters by pod, as they stood at one moment.
Look = Mapping[str, Mapping[_Key, float]]


@dataclass(frozen=True)
class Figures:
    """Requests for predictions that some servers answered in a window."""

    requests: int
    failed: int
    """Answered with anything but 2xx. What the load sends is right, so a 4xx is the server's fault as a 5xx is."""
    buckets: tuple[tuple[float, int], ...] = ()
    """(seconds, how many took no longer), as in a Prometheus histogram; the last bound is infinite."""

    @property
    def error_rate(self) -> float:
        """Failed of all; 0 where there were none."""
        return self.failed / self.requests if self.requests else 0.0

    def quantile(self, q: float) -> float:
        """Seconds that a share of the requests stayed below, as Prometheus' `histogram_quantile` estimates it: evenly spread
        within a bucket. NaN where there were no requests; the last finite bound where it lies beyond that.
        """
        total = self.buckets[-1][1] if self.buckets else 0
        if not total:
            return float("nan")
        rank, low, below = q * total, 0.0, 0
        for bound, count in self.buckets:
            if count >= rank and count > below:
                return low if bound == float("inf") else low + (bound - low) * (rank - below) / (count - below)
            low, below = bound, count
        return low


def look(deployer: Deployer, pods: Sequence[str], *, route: str = "/predict") -> Look:
    """The counters of some pods now; each pod is asked itself.

    Raises:
        CourseError: one does not answer with its metrics.
    """

    def ask(pod: str) -> dict[_Key, float]:
        with forward(deployer.api, deployer.namespace, pod, serving.PORT) as address:
            try:
                answer = httpx.get(f"{address}/metrics", timeout=10, trust_env=False).raise_for_status()
            except httpx.HTTPError as error:
                raise CourseError(f"pod {pod} does not give its metrics", why=str(error) or repr(error)) from None
        return counters(answer.text, route)

    with ThreadPoolExecutor(8) as pool:
        return dict(zip(pods, pool.map(ask, pods), strict=True))


def counters(text: str, route: str) -> dict[_Key, float]:
    """What of a server's metrics counts here.

    Args:
        text: in Prometheus' text format.

    Raises:
        CourseError: there is no counter of requests in it: that is not the server's page.
    """
    families = list(text_string_to_metric_families(text))
    if _REQUESTS.removesuffix("_total") not in {one.name for one in families}:
        raise CourseError(f"there is no {_REQUESTS} among these metrics", do="Are they the inference server's?")
    found: dict[_Key, float] = {}
    for one in (sample for family in families for sample in family.samples):
        counts = one.labels.get("route") in (route, _UNROUTED)
        if (counts and one.name == _REQUESTS) or (one.labels.get("route") == route and one.name == _SECONDS):
            key = ("status", one.labels["status"]) if one.name == _REQUESTS else ("le", one.labels["le"])
            found[key] = found.get(key, 0.0) + one.value
    return found


def between(before: Look, after: Look) -> Figures:
    """What was counted between two looks.

    A pod that is new in the second began at 0, as does one that was restarted in between: its counters are lower than they
    were. What a pod counted that is gone is gone with it.
    """
    sums: dict[_Key, float] = {}
    for pod, now in after.items():
        then = before.get(pod, {})
        restarted = any(now.get(key, 0) < value for key, value in then.items())
        for key, value in now.items():
            sums[key] = sums.get(key, 0.0) + value - (0 if restarted else then.get(key, 0))
    statuses = {label: value for (kind, label), value in sums.items() if kind == "status"}
    buckets = sorted((float(label), round(value)) for (kind, label), value in sums.items() if kind == "le")
    return Figures(
        requests=round(sum(statuses.values())),
        failed=round(sum(value for status, value in statuses.items() if not status.startswith("2"))),
        buckets=tuple(buckets),
    )
