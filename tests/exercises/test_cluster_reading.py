"""What lab 4.4.5's checks read in manifests before anything runs: each rule, and manifests of every shape."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from course_lib.cluster import manifests
from course_lib.errors import CourseError
from course_lib.exercises import cluster_autoscaler as scaling
from course_lib.exercises import cluster_ending as ending
from course_lib.exercises import cluster_own_reading as reading
from course_lib.exercises import cluster_scenes
from course_lib.lab import exercise
from course_lib.settings import CHECKOUT, settings

LAB = "4.4.5"
ANSWERS = CHECKOUT / "solutions" / LAB
Place = tuple[Any, ...]


class Live(Exception):
    """From here on a cluster would be needed."""


@pytest.fixture(autouse=True)
def no_cluster(fresh_state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a cluster nor an engine is asked for anything."""

    def asked() -> None:
        raise Live

    monkeypatch.setattr(cluster_scenes, "ready_cluster", asked)
    monkeypatch.setenv("IMAGES", "debian")
    settings.cache_clear()


def answer(name: str) -> list[dict[str, Any]]:
    files = sorted((ANSWERS / name / "answer").glob("*.yaml"))
    return [one for file in files for one in yaml.safe_load_all(file.read_text())]


def of_kind(found: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    return next(one for one in found if one["kind"] == kind)


def container(deployment: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = deployment["spec"]["template"]["spec"]["containers"][0]
    return found


def places(found: Any, place: Place = ()) -> Iterator[Place]:
    items = found.items() if isinstance(found, dict) else enumerate(found) if isinstance(found, list) else ()
    for key, value in items:
        yield (*place, key)
        yield from places(value, (*place, key))


def changed(found: list[dict[str, Any]], place: Place, value: Any) -> list[dict[str, Any]]:
    spoilt: Any = copy.deepcopy(found)
    here = spoilt
    for key in place[:-1]:
        here = here[key]
    here[place[-1]] = value
    return list(spoilt)


@pytest.mark.parametrize("name", ["no-request-lost", "hold-p95", "own-manifests"])
def test_a_reference_answer_is_read_to_its_end(name: str) -> None:
    with pytest.raises(Live):
        exercise.find(LAB, name).check(ANSWERS / name / "answer")


@pytest.mark.parametrize("name", ["no-request-lost", "hold-p95", "own-manifests"])
def test_manifests_of_every_shape_are_an_answer_and_no_traceback(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each place of a right answer holds something else once."""
    found, refused, read = answer(name), 0, manifests.read
    given: list[dict[str, Any]] = []
    # As objects: thousands of files take minutes to be parsed.
    monkeypatch.setattr(manifests, "read", lambda source, **more: read(given if source == tmp_path else source, **more))
    for place in places(found):
        for value in (None, "x", -1, [], ["x"], {"x": "y"}):
            given = changed(found, place, value)
            try:
                exercise.find(LAB, name).check(tmp_path)
            except (exercise.NotYet, CourseError):
                refused += 1
            except Live:
                pass
            except Exception as error:
                raise AssertionError(f"{place} = {value!r}") from error
    assert refused > 50


@pytest.mark.parametrize(
    ("hook", "seconds"),
    [
        (None, 0),
        ({"exec": {"command": ["sleep", "5"]}}, 5),
        ({"exec": {"command": ["sh", "-c", "date; sleep 2.5"]}}, 2.5),
        ({"sleep": {"seconds": 4}}, 4),
    ],
)
def test_the_seconds_of_a_hook_count(hook: Any, seconds: float) -> None:
    found = answer("no-request-lost")
    deployment = of_kind(found, "Deployment")
    container(deployment)["lifecycle"] = {"preStop": hook}
    container(deployment)["env"] += [{"name": "SHUTDOWN_DELAY_SECONDS", "value": "1"}]
    assert ending.require_time_to_end(found, deployment) == seconds + 1 + 20


def test_the_servers_own_delay_does_what_the_hook_does() -> None:
    found = answer("no-request-lost")
    deployment = of_kind(found, "Deployment")
    del container(deployment)["lifecycle"]
    with pytest.raises(exercise.NotYet, match="as soon as it is told to end"):
        ending.require_time_to_end(found, deployment)
    container(deployment)["env"] += [{"name": "SHUTDOWN_DELAY_SECONDS", "value": "5"}]
    assert ending.require_time_to_end(found, deployment) == 25


def test_what_a_container_says_itself_wins_over_its_config_map() -> None:
    found = answer("own-manifests")
    deployment = of_kind(found, "Deployment")
    assert ending.settings(found, deployment)["DRAIN_SECONDS"] == "15"
    container(deployment)["env"] += [{"name": "DRAIN_SECONDS", "value": "7"}]
    assert ending.settings(found, deployment)["DRAIN_SECONDS"] == "7"


@pytest.mark.parametrize(("unavailable", "fine"), [(None, True), (0, True), (1, True), ("50%", True), (2, False), ("100%", False)])  # fmt: skip
def test_one_pod_of_two_may_be_missing(unavailable: Any, fine: bool) -> None:
    deployment = of_kind(answer("no-request-lost"), "Deployment")
    deployment["spec"]["strategy"] = {"rollingUpdate": {"maxUnavailable": unavailable}}
    if fine:
        ending.require_some_stay(deployment, replicas=2)
        return
    with pytest.raises(exercise.NotYet, match="may be missing at once"):
        ending.require_some_stay(deployment, replicas=2)


@pytest.mark.parametrize(
    ("probe", "fine"),
    [
        ({"httpGet": {"path": "/ready"}}, True),
        ({"exec": {"command": ["inference-server", "health", "--ready"]}}, True),
        ({"exec": {"command": ["inference-server", "health"]}}, False),
        ({"tcpSocket": {"port": 8080}}, False),
    ],
)
def test_a_readiness_probe_asks_for_readiness(probe: Any, fine: bool) -> None:
    deployment = of_kind(answer("no-request-lost"), "Deployment")
    container(deployment)["readinessProbe"] = probe
    if fine:
        ending.require_asks_for_readiness(deployment)
        return
    with pytest.raises(exercise.NotYet, match="while the models are still being loaded"):
        ending.require_asks_for_readiness(deployment)


@pytest.mark.parametrize(
    ("target", "cores"),
    [({"averageUtilization": 70}, 0.105), ({"averageValue": "120m"}, 0.12), ({"averageUtilization": 300}, 0.45)],
)
def test_a_target_in_cores(target: Any, cores: float) -> None:
    found = answer("own-manifests")
    scaler, deployment = of_kind(found, scaling.KIND), of_kind(found, "Deployment")
    scaler["spec"]["metrics"][0]["resource"]["target"] = target
    assert scaling.target(scaler, deployment) == pytest.approx(cores)


def test_a_target_that_is_missed_by_a_tenth_is_never_passed() -> None:
    found = answer("own-manifests")
    scaler, deployment = of_kind(found, scaling.KIND), of_kind(found, "Deployment")
    scaler["spec"]["metrics"][0]["resource"]["target"] = {"averageValue": "460m"}  # of 500m
    with pytest.raises(exercise.NotYet, match="never seen above its target"):
        scaling.target(scaler, deployment)


@pytest.mark.parametrize(
    ("least", "budget", "fine"),
    [
        (1, {"maxUnavailable": 1}, True), (1, {"maxUnavailable": "50%"}, True), (1, {"maxUnavailable": 0}, False),
        (1, {"minAvailable": 1}, False), (2, {"minAvailable": 1}, True), (2, {"minAvailable": "60%"}, False),
        (2, {}, False),
    ],
)  # fmt: skip
def test_a_budget_lets_a_node_be_drained(least: int, budget: Any, fine: bool, tmp_path: Path) -> None:
    found = answer("own-manifests")
    of_kind(found, scaling.KIND)["spec"]["minReplicas"] = least
    one = of_kind(found, "PodDisruptionBudget")
    one["spec"] = {"selector": one["spec"]["selector"], **budget}
    (tmp_path / "manifests.yaml").write_text(yaml.safe_dump_all(found))
    if fine:
        assert reading.read(tmp_path).least == least
        return
    with pytest.raises(exercise.NotYet, match="budget"):
        reading.read(tmp_path)
