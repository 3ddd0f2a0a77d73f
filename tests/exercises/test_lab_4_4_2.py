"""Lab 4.4.2's checks against real stacks: an untouched stub, every wrong answer, the reference answer."""

from __future__ import annotations

import shutil
from pathlib import Path

import proofs
import pytest

from course_lib import lab, shell
from course_lib.exercises import lab_4_4_2 as exercises
from course_lib.lab import exercise, store
from course_lib.settings import settings

pytestmark = [pytest.mark.docker, pytest.mark.timeout(600)]

LAB = "4.4.2"


def containers() -> set[str]:
    """This session's containers, but for the lab's own stack, which the exercise in a terminal works on."""
    names = shell.run(["docker", "ps", "--all", "--format={{.Names}}"], show=False).output.split()
    own = settings().object_name("")
    return {name for name in names if name.startswith(own) and not name.startswith(f"{own}rag-")}


@pytest.mark.parametrize("case", proofs.cases(LAB), ids=str)
def test_a_check_says_what_is_so(case: proofs.Case, learner: Path) -> None:
    status, said = proofs.play(case)
    assert status == case.status, said
    assert case.words in said
    assert not containers(), "a check removes the containers it started"
    if case.status == "passed" and exercise.find(LAB, case.exercise).deliverable:
        _, _, deliverable = store.exercises(store.run_id())[f"{LAB}/{case.exercise}"]
        assert deliverable is not None and deliverable["services"] == 3
        assert deliverable["up_until_healthy_seconds"] > 0 and deliverable["answer_p50_milliseconds"] > 0


def test_the_colleagues_stack_fails_for_a_reason_that_is_told(learner: Path) -> None:
    said = exercises.see_it_fail()
    assert "not every service got healthy" in said and "curl" in said
    assert not containers()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("answer-cache", "there is no service cache"),
        ("replica-alert", "there is no alert TooFewReplicas"),
        ("own-stack", "there is no service inference"),
    ],
)
def test_a_starter_has_the_flaw_it_is_about(name: str, words: str, learner: Path) -> None:
    one = exercise.find(LAB, name)
    with pytest.raises(exercise.NotYet) as refused:
        one.check(one.starter)
    assert words in refused.value.seen


@pytest.mark.parametrize(
    "text",
    ["services:\n  cache:\n   image: x\n    command: y\n", "services: [cache]\n", "- a list\n", ""],
    ids=["indentation", "a list of services", "a list", "empty"],
)
def test_a_file_that_compose_cannot_read_is_an_answer_too(text: str, learner: Path) -> None:
    lab.begin(LAB)
    folder = lab.files("answer-cache")
    (folder / "compose.cache.yaml").write_text(text)
    lab.check("answer-cache")
    status, said, _ = store.exercises(store.run_id())[f"{LAB}/answer-cache"]
    assert status == "not_yet" and "look at:" in said
    shutil.rmtree(folder)


def test_a_function_that_raises_is_told_as_it_is(learner: Path) -> None:
    """A learner's bug is a traceback of theirs, and the stack it was given is gone."""

    def spread(stack: object, requests: int) -> dict[str, float]:
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        exercise.find(LAB, "three-replicas").check(spread)
    assert not containers()


@pytest.mark.parametrize("name", exercise.of_lab(LAB))
def test_hints_come_in_three(name: str) -> None:
    hints = exercise.find(LAB, name).hints
    assert len(hints) == 3
    assert len(set(hints)) == 3
