"""A step is what was read back: without the readings it needs it fails, and says which."""

from __future__ import annotations

from pathlib import Path

import pytest

from course_lib import lab
from course_lib.errors import CourseError
from course_lib.lab import catalog, store
from course_lib.lab.steps import record

STEP = catalog.step("4.4.1.2")


def test_a_step_with_its_readings_passes_and_keeps_them(fresh_state: Path) -> None:
    with lab.step(STEP.id):
        for fact in STEP.needs:
            record(fact, "docker", "some:1", found=3)
    status, _, why = store.steps(store.run_id())[STEP.id]
    assert (status, why) == ("passed", "")
    assert [e.fact for e in store.evidence(store.run_id(), STEP.id)] == list(STEP.needs)


def test_a_step_without_one_of_them_fails_and_names_it(fresh_state: Path) -> None:
    with pytest.raises(CourseError, match=STEP.needs[1]), lab.step(STEP.id):
        record(STEP.needs[0], "docker", "some:1")
    status, _, why = store.steps(store.run_id())[STEP.id]
    assert status == "failed" and STEP.needs[1] in why
    assert store.evidence(store.run_id(), STEP.id) == []


def test_an_error_inside_is_the_reason(fresh_state: Path) -> None:
    with pytest.raises(ZeroDivisionError), lab.step(STEP.id):
        raise ZeroDivisionError("the world")
    assert store.steps(store.run_id())[STEP.id][2] == "the world"


def test_a_reading_outside_a_step_is_nobodys(fresh_state: Path) -> None:
    record(STEP.needs[0], "docker", "some:1")
    with pytest.raises(CourseError), lab.step(STEP.id):
        pass


def test_every_step_of_the_catalogue_needs_something() -> None:
    steps = [step for one in catalog.every().values() for step in one.steps]
    assert len({step.id for step in steps}) == len(steps)
    assert all(step.needs for step in steps)


def test_an_unknown_step_or_lab_is_refused() -> None:
    with pytest.raises(CourseError, match=r"4\.4\.1\.99"):
        catalog.step("4.4.1.99")
    with pytest.raises(CourseError, match="there is no lab"):
        lab.begin("9.9.9")


def test_a_notebook_can_not_record(fresh_state: Path) -> None:
    """Readings come from the rooms that read; what a notebook sees has no word for making one up."""
    assert not hasattr(lab, "record")
