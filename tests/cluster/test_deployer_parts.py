"""The Deployer's smaller parts, without a cluster."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from course_lib.cluster import autoscaling, deletion, events, pods, usage
from course_lib.errors import CourseError


def deployment(resources: dict[str, Any]) -> dict[str, Any]:
    return {
        "metadata": {"name": "web", "labels": {"app": "web"}},
        "spec": {"template": {"spec": {"containers": [{"name": "web", "resources": resources}]}}},
    }


@pytest.mark.parametrize("resources", [{}, {"requests": {"memory": "1Gi"}}, {"limits": {"memory": "1Gi"}}])
def test_an_autoscaler_needs_something_to_take_percents_of(resources: dict[str, Any]) -> None:
    with pytest.raises(CourseError, match="container web of Deployment web requests no CPU"):
        autoscaling.manifest(deployment(resources), minimum=1, maximum=3, cpu=70, behavior=None)


@pytest.mark.parametrize("resources", [{"requests": {"cpu": "100m"}}, {"limits": {"cpu": 1}}])
def test_a_limit_is_a_request_where_none_is(resources: dict[str, Any]) -> None:
    found = autoscaling.manifest(deployment(resources), minimum=1, maximum=3, cpu=70, behavior=None)
    assert found["spec"]["maxReplicas"] == 3 and "behavior" not in found["spec"]


@pytest.mark.parametrize(("minimum", "maximum", "cpu"), [(0, 3, 70), (4, 3, 70), (1, 3, 0)])
def test_numbers_that_contradict_each_other(minimum: int, maximum: int, cpu: int) -> None:
    with pytest.raises(CourseError, match="can't"):
        given = deployment({"requests": {"cpu": 1}})
        autoscaling.manifest(given, minimum=minimum, maximum=maximum, cpu=cpu, behavior=None)


def test_an_autoscaler_that_knows_nothing_yet() -> None:
    given = autoscaling.manifest(deployment({"requests": {"cpu": 1}}), minimum=1, maximum=3, cpu=70, behavior=None)
    assert autoscaling.of(given).words() == "0 -> 0 replicas (1 to 3); cpu ? of 70 %"


METRICS = """# HELP http_requests_total HTTP requests answered.
# TYPE http_requests_total counter
http_requests_total{method="GET",route="/health",status="200"} 7.0
http_requests_total{method="POST",route="/predict",status="200"} 40.0
http_requests_total{method="POST",route="/predict",status="422"} 2.0
# HELP http_requests_created When.
# TYPE http_requests_created gauge
http_requests_created{method="POST",route="/predict",status="200"} 1.7e+09
# HELP quiet_total With labels, and nothing counted yet.
# TYPE quiet_total counter
"""


@pytest.mark.parametrize(
    ("metric", "labels", "total"),
    [
        ("http_requests_total", {}, 49),
        ("http_requests_total", {"route": "/predict"}, 42),
        ("http_requests_total", {"route": "/predict", "status": "200"}, 40),
        ("http_requests_total", {"route": "/none"}, 0),
        ("quiet_total", {}, 0),
    ],
)
def test_a_counter_is_added_up_by_labels(metric: str, labels: dict[str, str], total: float) -> None:
    assert usage.total(METRICS, metric, labels) == total


def test_a_metric_that_is_not_there_is_not_0() -> None:
    assert usage.total(METRICS, "http_request_total", {}) is None


@pytest.mark.parametrize(("quantity", "amount"), [("500m", 0.5), (2, 2), ("512Mi", 2**29), ("1e3", 1000)])
def test_amounts_as_manifests_have_them(quantity: object, amount: float) -> None:
    assert usage.amount(quantity) == amount


@pytest.mark.parametrize("quantity", ["much", "", None, "512MiB"])
def test_what_is_no_amount(quantity: object) -> None:
    with pytest.raises(CourseError, match="is no amount"):
        usage.amount(quantity)


def event(**times: Any) -> dict[str, Any]:
    about = {"kind": "Pod", "name": "web", "fieldPath": "spec.containers{main}"}
    return {"metadata": {"creationTimestamp": "2026-11-21T10:00:00Z"}, "involvedObject": about, "reason": "R"} | times


@pytest.mark.parametrize(
    ("times", "second", "count"),
    [
        ({"lastTimestamp": "2026-11-21T10:00:05Z", "count": 4}, 5, 4),
        ({"lastTimestamp": None, "eventTime": "2026-11-21T10:00:06.500000Z"}, 6, 1),
        ({"eventTime": "2026-11-21T10:00:01.000000Z", "series": {"lastObservedTime": "2026-11-21T10:00:07.000000Z", "count": 3}}, 7, 3),
        ({}, 0, 1),
    ],
)  # fmt: skip
def test_events_of_old_and_new_clusters(times: dict[str, Any], second: int, count: int) -> None:
    found = events.of(event(**times))
    assert found.last.replace(microsecond=0) == datetime(2026, 11, 21, 10, 0, second, tzinfo=UTC)
    assert (found.count, found.object, found.container) == (count, "Pod/web", "main")


def test_a_selector_as_a_query_takes_it() -> None:
    wanted = {
        "matchLabels": {"app": "web", "tier": "front"},
        "matchExpressions": [
            {"key": "a", "operator": "In", "values": ["1", "2"]},
            {"key": "b", "operator": "NotIn", "values": ["3"]},
            {"key": "c", "operator": "Exists"},
            {"key": "d", "operator": "DoesNotExist"},
        ],
    }
    assert pods.selector({"spec": {"selector": wanted}}) == "app=web,tier=front,a in (1,2),b notin (3),c,!d"


def test_a_pods_owner_is_known_in_whatever_order_they_are_listed() -> None:
    """The API lists pods before ReplicaSets, and a ReplicaSet may be gone before its pods."""

    def one(uid: str, owner: str = "") -> dict[str, object]:
        owners = [{"uid": owner, "controller": True}] if owner else []
        return {"metadata": {"uid": uid, "ownerReferences": owners}}

    listed = [one("pod", "set"), one("other pod", "other set"), one("set", "deployment"), one("deployment")]
    assert deletion._with_owned({"deployment"}, listed) == {"deployment", "set", "pod"}
