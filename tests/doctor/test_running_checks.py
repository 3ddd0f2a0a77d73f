"""How checks are run: side by side, bounded in time, and never silent about what they could not do."""

from __future__ import annotations

import importlib
import threading
import time
from pathlib import Path

import pytest
from machines import a_machine

from course_lib import doctor
from course_lib.doctor import check, machine
from course_lib.doctor.check import Check
from course_lib.doctor.finding import Finding, error, ok
from course_lib.doctor.machine import Machine
from course_lib.errors import CourseError
from course_lib.host.engine import Engine, EngineState


def test_a_probe_that_hangs_becomes_a_finding_and_keeps_nobody_waiting() -> None:
    never = threading.Event()
    hangs = Check("hangs", lambda m: [ok(str(never.wait(30)))], seconds=0.3)
    well = Check("well", lambda m: [ok("fine")])
    started = time.monotonic()
    first, second = check.run([hangs, well], a_machine())
    assert time.monotonic() - started < 25
    assert first.check == "hangs" and first.severity == "warning" and "no answer within" in first.message
    assert second == Finding("ok", "fine", check="well")
    never.set()


def test_checks_run_side_by_side() -> None:
    meet = threading.Barrier(3)
    findings = check.run([Check(str(n), lambda m: [ok(str(meet.wait(60) >= 0))]) for n in range(3)], a_machine())
    assert [(f.check, f.message) for f in findings] == [("0", "True"), ("1", "True"), ("2", "True")]


def test_a_check_that_could_not_look_says_why_and_what_to_do(tmp_path: Path) -> None:
    def by_learner(m: Machine) -> list[Finding]:
        raise CourseError("the program `x` is not on this machine", do="Install it.")

    checks = [
        Check("course", by_learner),
        Check("file", lambda m: [ok((tmp_path / "none").read_text())]),
        Check("package", lambda m: [ok(str(importlib.import_module("a_package_that_nobody_has")))]),
    ]
    course, file, package = check.run(checks, a_machine())
    assert "`x` is not on this machine" in course.message and course.remedy == "Install it."
    assert "none" in file.message and file.severity == "warning" and file.remedy
    assert "a_package_that_nobody_has" in package.message and "./bootstrap.sh" in package.remedy


def test_a_bug_in_a_check_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        check.run([Check("bug", lambda m: [ok(str(1 // 0))])], a_machine())


def test_only_the_checks_of_a_lab_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "look", lambda lab: a_machine(lab=lab))
    checks = [
        Check("all", lambda m: [ok(str(m.lab))]),
        Check("one", lambda m: [ok("")], labs=("4.4.1",)),
        Check("other", lambda m: [ok("")], labs=("4.4.5",)),
    ]
    assert [(f.check, f.message) for f in doctor.examine("4.4.1", checks)] == [("all", "4.4.1"), ("one", "")]
    assert [f.check for f in doctor.examine(None, checks)] == ["all", "one", "other"]


def test_an_unknown_lab_is_a_sentence() -> None:
    with pytest.raises(CourseError, match=r"there is no lab '4\.4\.9'"):
        doctor.examine("4.4.9")


def test_without_an_engine_it_is_said_what_was_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    stopped = a_machine(engine=Engine(EngineState.STOPPED, "no"))
    monkeypatch.setattr(machine, "look", lambda lab: stopped)
    checks = [Check("engine", lambda m: [error("e", "r")]), Check("needs it", lambda m: [ok("")], needs_engine=True)]
    first, second = doctor.examine(None, checks)
    assert first.severity == "error" and second.severity == "note" and "needs it" in second.message
    monkeypatch.setattr(machine, "look", lambda lab: a_machine())
    assert [f.check for f in doctor.examine(None, checks)] == ["engine", "needs it"]


def test_mending_calls_each_fix_and_looks_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cure = tmp_path / "cured"

    def refuse() -> None:
        raise CourseError("nothing was installed", do="Say y.")

    def look(lab: str | None) -> list[Finding]:
        return [ok("well") if cure.exists() else error("ill", "Cure it.", fix=cure.touch)]

    monkeypatch.setattr(doctor, "examine", look)
    refused = Finding("error", "other", "Do it.", fix=refuse, check="engine")
    after = doctor.mend([*look(None), refused], None)
    assert cure.exists() and after[1:] == [ok("well")]
    assert after[0].check == "engine" and "nothing was installed" in after[0].message and after[0].remedy == "Say y."


def test_where_nothing_can_be_mended_nothing_is_looked_at_again() -> None:
    findings = [ok("well"), error("ill", "See a person.")]
    assert doctor.mend(findings, None) == findings


def test_a_finding_as_json() -> None:
    assert Finding("error", "m", "r", fix=print, check="c").as_json() == {
        "check": "c", "severity": "error", "message": "m", "remedy": "r", "fixable": True,
    }  # fmt: skip
