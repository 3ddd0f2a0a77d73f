"""What pods do and use: their own counters, and the CPU and memory that the metrics API knows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime

import httpx
from kubernetes.utils.quantity import parse_quantity
from prometheus_client.parser import text_string_to_metric_families

from course_lib.cluster.api import Api
from course_lib.cluster.events import moment
from course_lib.cluster.port_forward import forward
from course_lib.errors import CourseError


@dataclass(frozen=True)
class Usage:
    """What a pod used of late."""

    cpu: float
    """Cores, the mean over a window of some 15 s."""
    memory: int
    """Bytes: the working set, which the limit counts, too."""
    measured: datetime
    """UTC."""


def counted(
    api: Api, namespace: str, pods: Sequence[str], metric: str, *, port: int, path: str = "/metrics", **labels: str
) -> dict[str, float]:
    """What a counter of each pod says: its samples with these labels, added up.

    Each pod is asked itself, through a forwarded port: a Service would answer with any of them, and a NetworkPolicy may
    keep the API server's proxy out. A pod begins at 0, and what it has counted goes with it.

    Args:
        pods: names of pods that run.
        metric: a sample's name, as in `http_requests_total`.
        port: where the pod answers with its metrics.
        labels: such as `route="/predict"`.

    Raises:
        CourseError: a pod does not answer, or does not have that metric at all.
    """

    def ask(pod: str) -> float:
        with forward(api, namespace, pod, port) as address:
            try:
                answer = httpx.get(f"{address}{path}", timeout=20, trust_env=False).raise_for_status()
            except httpx.HTTPError as error:
                raise CourseError(
                    f"pod {pod} does not give its metrics at port {port}{path}", why=str(error) or repr(error),
                    do="Is it ready, and is that the port of its container?",
                ) from None  # fmt: skip
        value = total(answer.text, metric, labels)
        if value is None:
            raise CourseError(f"pod {pod} has no metric {metric}", do="Look at its /metrics for the name.")
        return value

    with ThreadPoolExecutor(8) as pool:
        return dict(zip(pods, pool.map(ask, pods), strict=True))


def used(api: Api, namespace: str, labels: str = "") -> dict[str, Usage]:
    """CPU and memory by pod, as the metrics API has them; a pod is in it some 15 to 30 s after its start.

    Raises:
        CourseError: the cluster has no metrics API: metrics-server is missing.
    """
    found = api.objects("metrics.k8s.io/v1beta1", "PodMetrics", namespace, labels=labels)
    return {
        one["metadata"]["name"]: Usage(
            cpu=sum(amount(each["usage"]["cpu"]) for each in one["containers"]),
            memory=int(sum(amount(each["usage"]["memory"]) for each in one["containers"])),
            measured=moment(one["timestamp"]),
        )
        for one in found
    }


def amount(quantity: object) -> float:
    """A quantity as manifests have it (`500m`, `512Mi`, 2) in cores or bytes.

    Raises:
        CourseError: it is none.
    """
    try:
        return float(parse_quantity(str(quantity)))
    except ValueError:
        raise CourseError(f"{quantity!r} is no amount", do="Write cores as 0.5 or 500m, and memory as 512Mi.") from None


def total(text: str, metric: str, labels: Mapping[str, str]) -> float | None:
    """The samples of a metric that carry these labels, added up; None where no such metric is declared.

    Args:
        text: metrics in Prometheus' text format.
    """
    families = list(text_string_to_metric_families(text))
    # A counter is declared under its name without `_total`; one with labels that has not counted yet has no samples.
    if not {metric, metric.removesuffix("_total")} & {one.name for one in families}:
        return None
    each = [one for family in families for one in family.samples if one.name == metric]
    return float(sum(one.value for one in each if labels.items() <= one.labels.items()))
