"""Each strategy on a real cluster, under load: a bad version is caught and a good one let through, and no request is lost.

The bad ones are really bad: trained on wrong labels, built without the model, given too little CPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from course_lib import lab
from course_lib.cluster import Deployer, KindCluster, require_replicas, strategies
from course_lib.cluster.strategies import (
    Gate,
    Journal,
    Release,
    Rule,
    Traffic,
    blue_green,
    canary,
    release,
    rolling,
    shadow,
)
from course_lib.cluster.strategies.traffic import CANDIDATE, STABLE
from course_lib.errors import CourseError
from course_lib.exercises import lab_rollouts as scenes
from course_lib.lab.steps import StepNotProven

#: By night: minutes each, and latencies that two lanes of tests on two cores would spoil. The gates themselves are in test_gate.py.
pytestmark = [pytest.mark.docker, pytest.mark.cluster, pytest.mark.nightly]

RATE, WINDOW = 25, 5
EXAM = scenes.rows()
NEVER = Release("inference-server:never-loaded")


@pytest.fixture(scope="module")
def versions(shared_cluster: KindCluster) -> Iterator[dict[str, Release]]:
    yield scenes.releases(shared_cluster)
    scenes.clear(shared_cluster)


@pytest.fixture
def at(shared_cluster: KindCluster, versions: dict[str, Release]) -> str:
    """Where users ask; the releases are on the nodes."""
    return scenes.address(shared_cluster)


def staged(cluster: KindCluster, strategy: str, deployment: str) -> Deployer:
    """The strategy's stage as the test before has left it, or a new one: each test can be run by itself."""
    found = scenes.deployer(cluster)
    there = found.api.find("apps/v1", "Deployment", deployment, found.namespace)
    return found if there else scenes.stage(cluster, strategy)


def images(deployer: Deployer, name: str) -> set[str]:
    return {one.image.rpartition("/")[2] for one in release.ready(deployer, name)}


def test_rolling_lets_the_good_version_through_and_takes_the_wrong_one_back(
    shared_cluster: KindCluster, versions: dict[str, Release], fresh_state: Path
) -> None:
    deployer, journal = scenes.stage(shared_cluster, "rolling"), Journal()

    def update(name: str, gate: Gate, seconds: float = WINDOW) -> strategies.Outcome:
        return rolling.update(
            deployer, "inference", versions[name], gate=gate, rows=EXAM, journal=journal, seconds=seconds
        )

    with lab.step("rollouts.1"):
        with scenes.users(shared_cluster, deployer, rate=RATE) as load:
            load.run_for(1)
            good, wrong = update("2", Gate()), update("3", Gate())
            load.run_for(1)
        strategies.require_accounted(load)
    assert good.passed and not wrong.passed
    assert [one.what for one in wrong.verdicts[0][1].findings if one.passed is False] == ["right answers"]
    assert images(deployer, "inference") == {"inference-server:digits-2"}
    assert {one.version for one in load.sent[-10:]} == {"2"}
    # Nobody asks, so nobody knows: as good as it is, it does not go on.
    unseen = update("1", Gate(worse=0.5), seconds=1)
    assert not unseen.passed and unseen.verdicts[0][1].decision is strategies.Decision.WAIT
    assert images(deployer, "inference") == {"inference-server:digits-2"}


def test_rolling_takes_back_what_never_gets_ready(shared_cluster: KindCluster, versions: dict[str, Release]) -> None:
    deployer = staged(shared_cluster, "rolling", "inference")
    before = images(deployer, "inference")
    outcome = rolling.update(
        deployer, "inference", NEVER, gate=Gate(), rows=EXAM, journal=Journal(), seconds=1, timeout=6
    )
    assert not outcome.passed and "first new pod" in outcome.why
    assert images(deployer, "inference") == before


def test_a_step_whose_gate_lets_everything_through_is_not_proven(
    shared_cluster: KindCluster, versions: dict[str, Release], fresh_state: Path
) -> None:
    deployer = staged(shared_cluster, "rolling", "inference")
    blind = Gate(worse=1.0, fast_enough=60)
    with pytest.raises(StepNotProven, match=r"rolling\.rolled-back"), lab.step("rollouts.1"):
        with scenes.users(shared_cluster, deployer, rate=RATE) as load:
            outcome = rolling.update(
                deployer, "inference", versions["3"], gate=blind, rows=EXAM, journal=Journal(), seconds=WINDOW
            )
        strategies.require_accounted(load)
    assert outcome.passed and images(deployer, "inference") == {"inference-server:digits-3"}


def test_blue_green_switches_refuses_and_switches_back(
    shared_cluster: KindCluster, versions: dict[str, Release], fresh_state: Path
) -> None:
    deployer, journal = scenes.stage(shared_cluster, "blue-green"), Journal()
    with lab.step("rollouts.2"):
        with scenes.users(shared_cluster, deployer, rate=RATE) as load:
            good, wrong, locked = (
                blue_green.deploy(
                    deployer, versions[name], gate=Gate(), rows=EXAM, journal=journal, seconds=WINDOW,
                    key=scenes.our_key(deployer),
                )
                for name in ("2", "3", "locked")
            )  # fmt: skip
            load.run_for(2)
        strategies.require_accounted(load, failed=len(load.sent) // 4)
    assert good.passed and not wrong.passed and not locked.passed
    assert [where for where, _ in wrong.verdicts] == ["before the switch"]
    assert [where for where, _ in locked.verdicts] == ["before the switch", "after the switch"]
    assert [one.what for one in locked.verdicts[1][1].findings if one.passed is False] == ["errors"]
    assert {one.status for one in load.sent} == {200, 401} and {one.status for one in load.sent[-10:]} == {200}
    assert "3" not in {one.version for one in load.sent}
    assert blue_green.live(deployer) == "green"
    assert images(deployer, "inference-green") == {"inference-server:digits-2"}


def test_blue_green_does_not_turn_to_what_never_gets_ready(
    shared_cluster: KindCluster, versions: dict[str, Release]
) -> None:
    deployer = staged(shared_cluster, "blue-green", "inference-blue")
    here = blue_green.live(deployer)
    with scenes.users(shared_cluster, deployer, rate=RATE) as load:
        outcome = blue_green.deploy(deployer, NEVER, gate=Gate(), rows=EXAM, journal=Journal(), seconds=1)
    strategies.require_accounted(load)
    assert not outcome.passed and outcome.why and not outcome.verdicts
    assert blue_green.live(deployer) == here


def test_a_canary_grows_or_ends(
    shared_cluster: KindCluster, versions: dict[str, Release], at: str, fresh_state: Path
) -> None:
    deployer, journal = scenes.stage(shared_cluster, "door"), Journal()

    def fly(name: str) -> strategies.Outcome:
        return canary.release(deployer, at, versions[name], gate=Gate(), rows=EXAM, journal=journal, seconds=WINDOW)

    with lab.step("rollouts.3"):
        with scenes.users(shared_cluster, deployer, rate=RATE) as load:
            good, forgotten, wrong = fly("2"), fly("forgotten"), fly("3")
            load.run_for(1)
        strategies.require_accounted(load, failed=len(load.sent) // 20)
        canary.start(deployer, versions["3"])
        canary.by_replicas(deployer, at, EXAM)
    assert [where for where, _ in good.verdicts] == ["10 %", "50 %"] and good.passed
    assert [where for where, _ in forgotten.verdicts] == [where for where, _ in wrong.verdicts] == ["10 %"]
    assert [one.what for one in wrong.verdicts[0][1].findings if one.passed is False] == ["right answers"]
    assert "errors" in [one.what for one in forgotten.verdicts[0][1].findings if one.passed is False]
    assert images(deployer, STABLE) == {"inference-server:digits-2"}
    assert {one.version for one in load.sent[-10:]} == {"2"}


@pytest.mark.parametrize("strategy", ["canary", "shadow"])
def test_no_request_goes_to_what_never_gets_ready(
    strategy: str, shared_cluster: KindCluster, versions: dict[str, Release], at: str
) -> None:
    deployer, journal = staged(shared_cluster, "door", STABLE), Journal()
    before = images(deployer, STABLE)
    with scenes.users(shared_cluster, deployer, rate=RATE) as load:
        if strategy == "canary":
            outcome = canary.release(deployer, at, NEVER, gate=Gate(), rows=EXAM, journal=journal, seconds=1)
        else:
            outcome, _ = shadow.follow(deployer, at, NEVER, rule=Rule(), journal=journal, seconds=1)
    strategies.require_accounted(load)
    assert not outcome.passed and outcome.why and not outcome.verdicts
    assert images(deployer, STABLE) == before and not release.ready(deployer, CANDIDATE)


def test_a_canary_that_is_not_there_costs_no_answer(
    shared_cluster: KindCluster, versions: dict[str, Release], at: str
) -> None:
    """Its share is answered by the trusted version; and what nobody has seen is not promoted."""
    deployer = staged(shared_cluster, "door", STABLE)
    release.empty(deployer, CANDIDATE)
    require_replicas(deployer, CANDIDATE, 0)
    strategies.direct(deployer, at, Traffic(candidate=50))
    with scenes.users(shared_cluster, deployer, rate=RATE) as load:
        load.run_for(4)
    strategies.require_accounted(load)
    strategies.direct(deployer, at, Traffic())
    assert len({one.version for one in load.sent}) == 1


def test_a_shadow_is_compared_and_never_heard(
    shared_cluster: KindCluster, versions: dict[str, Release], at: str, fresh_state: Path
) -> None:
    deployer, journal = staged(shared_cluster, "door", STABLE), Journal()
    scenes.start_over(deployer, versions["1"])
    with lab.step("rollouts.4"):
        with scenes.users(shared_cluster, deployer, rate=RATE) as load:
            (good, near), (wrong, far) = (
                shadow.follow(deployer, at, versions[name], rule=Rule(), journal=journal, seconds=WINDOW)
                for name in ("2", "3")
            )
        strategies.require_accounted(load)
        strategies.require_unseen(load, ["1"])
    assert good.passed and 0 < near.share < 0.2
    assert not wrong.passed and far.share > 0.25
    assert [one.what for one in wrong.verdicts[0][1].findings if one.passed is False] == ["disagreement"]
    assert {said for _, said in far.examples} and far.pairs > 100


def test_a_shadow_that_is_starved_is_stopped_for_its_latency(
    shared_cluster: KindCluster, versions: dict[str, Release], at: str
) -> None:
    """It agrees in everything and is slow; users notice nothing."""
    deployer = staged(shared_cluster, "door", STABLE)
    scenes.start_over(deployer, versions["2"])
    with scenes.users(shared_cluster, deployer, rate=50) as load:
        outcome, seen = shadow.follow(deployer, at, versions["starved"], rule=Rule(), journal=Journal(), seconds=8)
    strategies.require_accounted(load)
    assert [one.what for one in outcome.verdicts[0][1].findings if one.passed is False] == ["p95"]
    assert seen.differ == 0 and seen.pairs > 100


def test_users_stay_with_their_version_and_requests_do_not(
    shared_cluster: KindCluster, versions: dict[str, Release], at: str
) -> None:
    deployer = staged(shared_cluster, "door", STABLE)
    scenes.start_over(deployer, versions["1"])
    canary.start(deployer, versions["2"])
    strategies.direct(deployer, at, Traffic(candidate=50, by="user"))
    with scenes.users(shared_cluster, deployer, rate=40, many=40) as load:
        load.run_for(4)
    found = strategies.arms(load)
    assert set(found) == {"1", "2"} and sum(arm.users for arm in found.values()) == 40
    strategies.direct(deployer, at, Traffic(candidate=50))
    with scenes.users(shared_cluster, deployer, rate=40, many=40) as load:
        load.run_for(4)
    with pytest.raises(CourseError, match="saw both versions"):
        strategies.arms(load)
