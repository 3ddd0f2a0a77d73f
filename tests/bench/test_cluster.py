"""`course bench cluster`: its goals and tables, its arithmetic, and a short run for real."""

from __future__ import annotations

import itertools
import json
from copy import deepcopy
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from course_lib import shell
from course_lib.bench import (
    cluster,
    cluster_answers,
    cluster_load,
    cluster_scaling,
    cluster_served,
    cluster_table,
    cluster_usage,
    document,
    goals,
)
from course_lib.cluster import KindCluster
from course_lib.cluster.timeline import Moment
from course_lib.cluster.tools import Source
from course_lib.errors import CourseError
from course_lib.settings import settings
from course_lib.steady_load import Sent


def row(**more: Any) -> dict[str, Any]:
    """Requests under a load."""
    number = next(NUMBERS)
    fates = {"lost": 3 + number, "refused": 0, "cut": 2 + number, "given_up": 1}
    return {
        "requests": 6000 + number, "answered": 5997, **fates, "rate": 90.0 + number, "p99_ms": 10.5 + number,
        "errors": [f"ReadError {number}"], **more,
    }  # fmt: skip


def rolled(way: str) -> dict[str, Any]:
    late = {"late_p99_ms": 4.0, "answered_by_logs": 5997, "terminating_pods": 9}
    late |= {"answered_in_pre_stop": 1100 + next(NUMBERS), "answered_after_sigterm": 2100 + next(NUMBERS)}
    run = row(p50_ms=2.0, p95_ms=5.0, asked_rate=100.0, seconds=21.0, **late)
    return row(way=way, rollouts=3, asked_rate=100.0, seconds=22.5, runs=[run] * 3, **late)


def started(nodes: int) -> dict[str, Any]:
    times = {name: float(next(NUMBERS)) for name in ("up_s", "load_s", "ready_s", "down_s")}
    phases = ("what an earlier one left, removed", "kind create cluster", "every node Ready", "metrics server")
    return {
        "nodes": nodes, "rounds": 3, **times, "phases": {name: float(next(NUMBERS)) for name in phases},
        "kind_steps": {"Preparing nodes": 4.5, "Starting control-plane": 20.5}, "samples": {name: [1.0] for name in times},
    }  # fmt: skip


def used(*names: str) -> dict[str, dict[str, float]]:
    return {name: {"memory_mb": 100 + next(NUMBERS), "cpu_percent": float(next(NUMBERS))} for name in names}


NUMBERS = itertools.count(1)


@pytest.fixture
def found() -> dict[str, Any]:
    """Figures of no run: every number is another one, so that a table that mixes them up shows it."""
    way, *others = cluster_served.WAYS
    run = {"known_s": 11.5, "seen_s": 20.5, "decided_s": 21.5, "ready_s": 31.5, "cpu": 150, "replicas": 3, "lost": 0}
    accidents = {
        name: row(seconds=[4.5, 5.5])
        for name in ("nothing happens", "a pod's processes are killed", "a node is drained")
    }
    measured = {
        "one_node": started(1),
        "three_nodes": started(3),
        "autoscaler": cluster_scaling.together([{"up_s": 40.5, **run, "said": None}] * 10),
        "idle": {
            "seconds": 60,
            "nodes": used("control-plane", "worker"),
            "programs": used("kube-apiserver", "etcd", "others"),
        },
        "side_by_side": {"answering": 2, "shared": 0, "shared_names": [], "objects": [7, 8], "stays": True},
        "lab": {"seconds": 432.1, "status": "passed", "steps_passed": 7},
        "rollouts": rolled(way) | {"controls": [rolled(other) for other in others]},
        "accidents": {**accidents, "replicas": 3},
        "left": {"clusters": 22, "objects": []},
    }
    machine = {
        "cpu": "Some CPU",
        "cpus": 2,
        "memory_gb": 16.0,
        "system": "Linux",
        "load_average_before": 0.25,
        "engine": "26.1",
        "kind": "0.27.0",
    }
    return {
        "bench": "cluster", "date": "2026-11-21T10:00:00+00:00", "pieces": 1, "preliminary": False, "machine": machine, "kubernetes": "v1.20.2",
        "node_image": "kind's own", "revision": "abc1234", **measured, "goals": goals.cluster_goals(measured),
    }  # fmt: skip


def shape(value: Any) -> Any:
    """What a figure is made of, whatever it says."""
    if isinstance(value, dict):
        return {key: shape(one) for key, one in value.items()}
    return [shape(value[0])] if isinstance(value, list) and value and isinstance(value[0], dict) else None


def test_one_lost_request_misses_a_goal_and_so_does_anything_that_is_left(found: dict[str, Any]) -> None:
    found["rollouts"]["lost"] = 0
    found["left"]["objects"] = []
    found["side_by_side"]["answering"] = 2
    reached = goals.cluster_goals(found)
    lost, left, both = (
        "of these lost, refused or cut",
        "left behind by all of these",
        "clusters of two that know their own name",
    )
    assert all(reached[name]["met"] for name in (lost, left, both))
    found["rollouts"]["lost"] = 1
    found["left"]["objects"] = ["network course-x"]
    found["side_by_side"]["answering"] = 1
    found["autoscaler"] = None
    reached = goals.cluster_goals(found)
    assert reached[lost] == {"value": 1, "goal": "<= 0", "met": False}
    assert reached[left]["met"] is reached[both]["met"] is False
    assert reached["fresh clusters that this was tried in"] == {"value": None, "goal": ">= 10", "met": None}


def test_the_section_has_every_part_and_its_figures(found: dict[str, Any], tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "before\n<!-- course bench cluster: begin -->\nreplaced\n<!-- course bench cluster: end -->\nafter\n"
    )
    document.write("cluster", cluster_table.markdown(found), page)
    text = page.read_text()
    assert "replaced" not in text and text.startswith("before\n") and text.endswith("\nafter\n")
    for title, heads, lines in cluster_table.tables(found):
        assert f"**{title}.**" in text
        assert {len(line) for line in lines} == {len(heads)}, title
    assert len(cluster_table.tables(found)) == 6
    assert cluster.put_together([found]) == found
    assert f"| **up** | {found['one_node']['up_s']:.1f} | {found['three_nodes']['up_s']:.1f} |" in text
    for row in (found["rollouts"], *found["rollouts"]["controls"]):
        assert f"| {row['way']} | {row['requests']:,} | {row['rate']:.1f} | {row['lost']:,} |" in text
    assert "passed in 432 s, 7 of 7 steps" in text
    assert found["revision"] in text and found["machine"]["cpu"] in text


def test_a_busy_machine_is_said_and_what_was_not_measured_is_left_out(found: dict[str, Any]) -> None:
    found |= dict.fromkeys(cluster.ALL_PARTS)
    found["goals"] = goals.cluster_goals(found)
    found["preliminary"] = True
    text = cluster_table.markdown(found)
    assert cluster_table.tables(found) == []
    assert "Preliminary" in text and text.count("not measured") == len(found["goals"]) - 1  # what is left always is
    found["preliminary"] = False
    assert "Preliminary" not in cluster_table.markdown(found)


def test_an_autoscaler_that_does_nothing_is_in_the_table(found: dict[str, Any]) -> None:
    silent = dict.fromkeys(found["autoscaler"]["runs"][0]) | {"said": "404 from the metrics API"}
    found["autoscaler"] = cluster_scaling.together([*found["autoscaler"]["runs"], silent])
    assert found["autoscaler"]["share_within_limit"] < 1
    text = cluster_table.markdown(found)
    assert "404 from the metrics API" in text
    assert f"| {found['autoscaler']['clusters']} | never | never | never | never | never |" in text


def test_pieces_are_put_together(found: dict[str, Any]) -> None:
    """The later of what was measured twice; of the autoscaler's clusters all; and what was left by any."""
    first, second = deepcopy(found), deepcopy(found)
    first["one_node"]["up_s"], second["one_node"] = 31.0, None
    first["idle"], second["idle"]["seconds"] = None, 7
    first["rollouts"]["lost"], second["rollouts"]["lost"] = 0, 3
    second["kubernetes"] = ""
    first["left"]["objects"] = ["volume x"]
    first["preliminary"], second["preliminary"] = True, False
    whole = cluster.put_together([first, second])
    assert (whole["one_node"]["up_s"], whole["idle"]["seconds"], whole["rollouts"]["lost"]) == (31.0, 7, 3)
    assert whole["autoscaler"]["clusters"] == 2 * found["autoscaler"]["clusters"]
    assert whole["left"]["objects"] == ["volume x", *second["left"]["objects"]] and whole["preliminary"]
    assert whole["goals"]["of these lost, refused or cut"]["value"] == 3
    assert whole["kubernetes"] == found["kubernetes"]


def test_other_files_and_parts_are_refused_in_a_sentence(tmp_path: Path) -> None:
    other = tmp_path / "other.json"
    for content in ("[]", "{", json.dumps({"bench": "stack"}), json.dumps({"bench": "cluster"})):
        other.write_text(content)
        with pytest.raises(CourseError, match=r"holds no figures of `course bench cluster`"):
            cluster.read(other)
    with pytest.raises(CourseError, match="no part 'rollout'") as raised:
        cluster.figures(cluster.Plan.quick(), only=["rollout"])
    assert "rollouts" in raised.value.do


def test_requests_are_lost_in_three_ways() -> None:
    sent = [
        Sent(0, 0.1, 200),
        Sent(1, 0.3, 429, "busy"),
        Sent(2, 0.2, 503, "draining"),
        Sent(3, 0.1, 0, "ConnectError: no"),
    ]
    sent += [
        Sent(4, 0.1, 0, "ReadError: "),
        Sent(5, 0.1, 0, "RemoteProtocolError: gone"),
        Sent(6, 10.0, 0, "ReadTimeout: "),
    ]
    fates = cluster_load.fates(sent)
    assert {name: fates[name] for name in ("requests", "answered", "lost", "refused", "cut", "given_up")} == {
        "requests": 7, "answered": 1, "lost": 6, "refused": 3, "cut": 2, "given_up": 1,
    }  # fmt: skip
    assert fates["p99_ms"] == 100.0
    with pytest.raises(CourseError, match="no request was answered"):
        cluster_load.fates(sent[1:])


def line(at: str, message: str = "request", **fields: object) -> str:
    return json.dumps({"time": f"2026-11-21T10:00:{at}Z", "message": message, **fields})


def test_a_log_says_who_was_answered_and_when_the_server_had_to_go() -> None:
    log = cluster_answers.parse(
        "\n".join(
            [
                line("01.000", route="/predict", status=200),
                line("02.500", route="/predict", status=503),
                line("02.600", route="/metrics", status=200),
                line("03.000", "leaving"),
                line("04.000", route="/predict", status=200),
                line("06.000", "draining"),
                "Killed",
                "[1]",
            ]
        )
    )
    assert [at.second for at in log.answers] == [1, 4]
    assert log.leaving == datetime(2026, 11, 21, 10, 0, 3, tzinfo=UTC)
    assert cluster_answers.parse("").leaving is None


def test_a_pod_was_told_to_go_before_its_grace() -> None:
    meta = {"name": "x", "deletionTimestamp": "2026-11-21T10:00:30Z", "deletionGracePeriodSeconds": 30}
    assert cluster_answers.told_to_go({"metadata": meta}) == datetime(2026, 11, 21, 10, 0, 0, tzinfo=UTC)
    assert cluster_answers.told_to_go({"metadata": {"name": "x"}}) is None


def test_a_programs_share_is_read_from_the_kernel() -> None:
    def stat(number: int, name: str, ticks: int, pages: int) -> str:
        fields = ["S", "1", *["0"] * 9, str(ticks), "0", *["0"] * 8, str(pages), "0"]
        return f"{number} ({name}) {' '.join(fields)}"

    before = cluster_usage.parse([stat(1, "kube apiserver", 100, 5), stat(2, "etcd (x)", 50, 5)], 100, 4096)
    after = cluster_usage.parse([stat(1, "kube apiserver", 400, 1000), stat(3, "etcd (x)", 100, 5)], 100, 4096)
    assert after["1"] == ("kube apiserver", 4.0, 4.096)
    shares = cluster_usage._programs(before, after, 10.0)
    assert shares["kube apiserver"] == {"memory_mb": 4, "cpu_percent": 30.0}
    assert shares["etcd (x)"]["cpu_percent"] == 10.0, "a program that was not there before has used all since then"


def test_what_is_taken_away_is_gone_and_nothing_else(image_source: Source) -> None:
    """The controls differ from k8s/ in what their names say."""
    made = {
        way: {one["kind"]: one for one in cluster_served.objects(way, KindCluster("bench", source=image_source))}
        for way in cluster_served.WAYS
    }
    ours, abrupt, blind = (one["Deployment"]["spec"] for one in made.values())
    for spec in (ours, abrupt, blind):
        assert spec["replicas"] == cluster_served.REPLICAS
    assert all("HorizontalPodAutoscaler" not in one for one in made.values())

    def server(spec: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = spec["template"]["spec"]["containers"][0]
        return found

    assert server(ours).keys() - server(abrupt).keys() == {"lifecycle"}
    assert server(abrupt).keys() - server(blind).keys() == {"startupProbe", "readinessProbe", "livenessProbe"}
    assert server(abrupt)["env"][-1] == {"name": "SHUTDOWN_DELAY_SECONDS", "value": "0"}
    assert server(ours)["env"] == server(abrupt)["env"][:-1]


def test_seconds_count_from_the_load() -> None:
    moments = [
        Moment(1.0, 3, 70, 1, 1, 1),
        Moment(9.0, 150, 70, 1, 1, 1),
        Moment(12.5, 150, 70, 3, 3, 1),
        Moment(20.0, 150, 70, 3, 3, 2),
    ]
    assert cluster_scaling._first(moments, cluster_scaling._over, 0.5) == 8.5
    assert cluster_scaling._first(moments, lambda one: one.ready >= 2, 0.5) == 19.5
    assert cluster_scaling._first(moments[:2], lambda one: one.ready >= 2, 0.5) is None


@pytest.mark.nightly
@pytest.mark.docker
@pytest.mark.cluster
def test_a_quick_run_loses_nothing_and_leaves_nothing(fresh_state: Path, found: dict[str, Any]) -> None:
    said: list[str] = []
    measured = cluster.figures(cluster.Plan.quick(), only=["rollouts", "accidents"], say=said.append)
    assert measured["preliminary"] and measured["one_node"] is None
    assert measured["left"] == {"clusters": 1, "objects": []}
    mine = f"--filter=name={settings().object_name('bench')}"
    for kind in ("ps --all", "network ls"):
        assert shell.run(["docker", *kind.split(), "--quiet", mine]).output == "", kind
    rolled = measured["rollouts"]
    assert rolled["lost"] == 0 and rolled["requests"] >= cluster.Plan.quick().requests, rolled
    assert rolled["answered_by_logs"] == rolled["answered"], rolled
    assert rolled["terminating_pods"] == cluster_served.REPLICAS
    assert rolled["answered_in_pre_stop"] + rolled["answered_after_sigterm"] > 0, (
        "kept connections lead to the old pods"
    )
    assert measured["accidents"]["nothing happens"]["lost"] == 0
    del found["accidents"]["a node is drained"]  # of a cluster with workers
    found["rollouts"]["controls"] = []
    for name in ("rollouts", "accidents"):
        assert shape(measured[name]) == shape(found[name])
    titles = [title for title, _, _ in cluster_table.tables(measured)]
    assert titles == ["A rollout under load", "Accidents under load"]
