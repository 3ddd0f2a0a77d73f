"""Lab 4.4.5's checks against a real cluster: an untouched stub, every wrong answer, the reference answer."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import proofs
import pytest

from course_lib import lab
from course_lib.cluster import Cluster
from course_lib.exercises import cluster_scenes, cluster_terminal
from course_lib.lab import exercise, store

LAB = "4.4.5"
on_a_cluster = [pytest.mark.docker, pytest.mark.cluster, pytest.mark.timeout(600, func_only=True)]
#: The namespaces of every cluster, and the one that the exercise in a terminal leaves for the learner.
STAY = {"default", "kube-node-lease", "kube-public", "kube-system", "local-path-storage", cluster_terminal.NAMESPACE}


@pytest.fixture(scope="module")
def lab_cluster(learner: Path) -> Iterator[Cluster]:
    """The lab's cluster with the course's image on its nodes, as a check finds it, or starts it."""
    try:
        yield cluster_scenes.ready_cluster()
    finally:
        cluster_scenes.lab_cluster().down()


def left_in(found: Cluster) -> set[str]:
    said = found.kubectl("get", "namespaces", "--output=jsonpath={.items[*].metadata.name}", show=False)
    return set(said.output.split()) - STAY


#: What takes a minute or two each and wants a quiet machine: by night. Every exercise keeps a wrong answer, and the answers are
#: passed whenever the solution is executed.
SLOW = {
    "from-events-wrong-2",
    "hold-p95-answer",
    "in-a-terminal-wrong-2",
    "in-a-terminal-wrong-3",
    "never-ready-wrong-memory",
    "never-ready-wrong-path",
    "never-ready-wrong-pull",
    "no-request-lost-wrong-not-asked",
    "own-manifests-answer",
    "right-size-answer",
    *(f"right-size-wrong-{number}" for number in range(1, 5)),
}


def marks(case: proofs.Case) -> list[pytest.MarkDecorator]:
    return [*on_a_cluster, *[pytest.mark.nightly] * (str(case) in SLOW)]


def test_what_is_left_for_the_night_is_there_and_is_not_all_of_it() -> None:
    wrong = {str(one): one.exercise for one in proofs.cases(LAB) if one.status == "not_yet"}
    assert {str(one) for one in proofs.cases(LAB)} >= SLOW
    assert {wrong[name] for name in set(wrong) - SLOW} == set(exercise.of_lab(LAB))


@pytest.mark.parametrize("case", [pytest.param(one, marks=marks(one), id=str(one)) for one in proofs.cases(LAB)])
def test_a_check_says_what_is_so(case: proofs.Case, lab_cluster: Cluster) -> None:
    if case.exercise == "in-a-terminal":  # anew, as its table tells a learner to begin anew
        lab_cluster.kubectl(
            "delete", "namespace", "--ignore-not-found", cluster_terminal.NAMESPACE, show=False, timeout=300
        )
    status, said = proofs.play(case)
    if (case.exercise, case.what, status) == ("closed-door", "answer", "skipped"):
        # Nothing on these nodes carries policies out, so there is nothing to try; how they read was checked all the same.
        assert "13 connections were worked out from their text" in said and "still reached the other" in said
    else:
        assert status == case.status, said
    assert case.words in said
    assert not left_in(lab_cluster), "a check removes the namespace it made"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        pytest.param("never-ready", 'secret "inference-key" not found', marks=on_a_cluster),
        pytest.param("closed-door", "does not reach the server", marks=on_a_cluster),
    ],
)
def test_a_starter_has_the_flaw_it_is_about(name: str, words: str, lab_cluster: Cluster) -> None:
    one = exercise.find(LAB, name)
    with pytest.raises(exercise.NotYet) as refused:
        one.check(one.starter)
    assert words in refused.value.seen
    assert not left_in(lab_cluster)


@pytest.mark.parametrize("name", ["never-ready", "closed-door"])
@pytest.mark.parametrize(
    "text",
    ["kind: Service\n metadata: {}\n", "- a list\n", "", "apiVersion: v1\nkind: Namespace\nmetadata: { name: mine }\n"],
    ids=["indentation", "a list", "empty", "another kind"],
)
def test_a_file_that_is_no_such_manifest_is_an_answer_too(name: str, text: str, learner: Path) -> None:
    """Refused before a cluster is asked for."""
    lab.begin(LAB)
    folder = lab.files(name)
    for file in folder.iterdir():
        file.write_text(text)
    lab.check(name)
    status, said, _ = store.exercises(store.run_id())[f"{LAB}/{name}"]
    assert status == "not_yet" and "look at:" in said
    shutil.rmtree(folder)


@pytest.mark.parametrize("name", exercise.of_lab(LAB))
def test_hints_come_in_three(name: str) -> None:
    hints = exercise.find(LAB, name).hints
    assert len(hints) == 3
    assert len(set(hints)) == 3
