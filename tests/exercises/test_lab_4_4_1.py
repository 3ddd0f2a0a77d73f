"""Lab 4.4.1's checks against the real engine: an untouched stub, every wrong answer, the reference answer."""

from __future__ import annotations

import shutil
from pathlib import Path

import proofs
import pytest

from course_lib import lab, shell
from course_lib.images import containers
from course_lib.images.engine_client import client
from course_lib.lab import exercise, store
from course_lib.settings import CHECKOUT, settings

pytestmark = pytest.mark.docker

LAB = "4.4.1"


@pytest.mark.parametrize("case", proofs.cases(LAB), ids=str)
def test_a_check_says_what_is_so(case: proofs.Case, learner: Path) -> None:
    status, said = proofs.play(case)
    assert status == case.status, said
    assert case.words in said
    left = client().containers.list(all=True, filters={"name": f"^/{settings().object_name('exercise-')}"})
    assert not left, "a check removes the containers it started"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("layer-order", "the model was trained again"),
        ("small-image", "the build has one stage"),
        ("dead-model", "still healthy"),
        ("least-privilege", "the journal can't be written"),
        ("mounted-weights", "a layer still holds"),
    ],
)
def test_a_starter_has_the_flaw_it_is_about(name: str, words: str, learner: Path) -> None:
    one = exercise.find(LAB, name)
    with pytest.raises(exercise.NotYet) as refused:
        one.check(one.starter)
    assert words in refused.value.seen


def test_an_edited_copy_in_work_is_what_gets_checked(learner: Path) -> None:
    lab.begin(LAB)
    folder = lab.files("mounted-weights")
    assert folder == learner / LAB / "mounted-weights"
    answer = CHECKOUT / "solutions" / LAB / "mounted-weights" / "answer" / "Dockerfile"
    shutil.copy(answer, folder / "Dockerfile")
    lab.files("mounted-weights")  # as when the cell is run again: it must not bring the starter back
    lab.check("mounted-weights")
    assert store.exercises(store.run_id())[f"{LAB}/mounted-weights"][0] == "passed"


def test_a_dockerfile_that_does_not_build_is_an_answer_too(learner: Path) -> None:
    lab.begin(LAB)
    folder = lab.files("own-dockerfile")
    (folder / "Dockerfile").write_text("ARG BASE_IMAGE\nFROM ${BASE_IMAGE}\nCOPPY service.py /srv/\n")
    lab.check("own-dockerfile")
    status, said, _ = store.exercises(store.run_id())[f"{LAB}/own-dockerfile"]
    assert status == "not_yet"
    assert "the Dockerfile can't be read" in said


def test_the_deliverable_is_recorded_with_what_was_measured(learner: Path) -> None:
    case = next(c for c in proofs.cases(LAB) if str(c) == "own-dockerfile-answer")
    proofs.play(case)
    _, _, deliverable = store.exercises(store.run_id())[f"{LAB}/own-dockerfile"]
    assert deliverable is not None
    assert deliverable["megabytes"] > 10
    assert deliverable["layers"] >= 3
    assert deliverable["uid"] != 0
    assert deliverable["questions_right"] == "5 of 5"


def test_a_name_that_is_somebody_elses_is_not_taken(
    learner: Path, container_names: list[str], small_image: str
) -> None:
    """The exercise in a terminal is not attempted as long as only a similarly named container is there."""
    other = containers.start(small_image, "terminal-2", port=None, arguments=("sleep", "30"))
    container_names.append(other.name)
    # left by the case before, as a learner's would be
    shell.run(["docker", "rm", "--force", settings().object_name("terminal")], show=False, check=False)
    case = next(c for c in proofs.cases(LAB) if str(c) == "in-a-terminal-stub")
    assert proofs.play(case)[0] == "not_attempted"


@pytest.mark.parametrize("name", exercise.of_lab(LAB))
def test_hints_come_in_three(name: str) -> None:
    hints = exercise.find(LAB, name).hints
    assert len(hints) == 3
    assert len(set(hints)) == 3
