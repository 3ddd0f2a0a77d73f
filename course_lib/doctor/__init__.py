"""The doctor: looks at this machine and says what would stop a lab, and what to do about it. One check a file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from course_lib.doctor import (
    architecture,
    base_images,
    certificates,
    check,
    clone,
    cuda_in_container,
    cuda_versions,
    disk,
    engine_state,
    environment,
    image_store,
    kubernetes,
    machine,
    memory,
    nvidia_toolkit,
    ports,
    proxies,
    versions,
)
from course_lib.doctor.check import Check
from course_lib.doctor.finding import Finding, error, note
from course_lib.errors import CourseError

__all__ = ["CHECKS", "Check", "Finding", "examine", "mend", "require"]

#: In the order in which a person would ask.
CHECKS: tuple[Check, ...] = tuple(
    room.CHECK
    for room in (
        engine_state,
        versions,
        architecture,
        image_store,
        base_images,
        disk,
        memory,
        nvidia_toolkit,
        cuda_versions,
        cuda_in_container,
        ports,
        proxies,
        certificates,
        environment,
        clone,
        kubernetes,
    )
)


def examine(lab: str | None, checks: Sequence[Check] = CHECKS) -> list[Finding]:
    """Looks at the machine; changes nothing.

    Args:
        lab: only what this lab needs; None looks at everything.

    Raises:
        CourseError: there is no lab of that id.
    """
    if lab is not None:
        from course_lib.lab import catalog

        catalog.lab(lab)
    found = machine.look(lab)
    concerned = [one for one in checks if one.concerns(lab)]
    left_out = [one.name for one in concerned if one.needs_engine and not found.engine.usable]
    findings = check.run([one for one in concerned if one.name not in left_out], found)
    if left_out:
        told = note(f"not looked at, because it takes an engine that answers: {', '.join(left_out)}")
        findings.insert(1, replace(told, check="engine"))
    return findings


def require(labs: Sequence[str]) -> None:
    """Stops before the first cell where a lab is bound to fail, instead of in the middle of it.

    Raises:
        CourseError: an error of one of the checks that these labs need, each with its remedy.
    """
    errors = dict.fromkeys(one for lab in labs for one in examine(lab) if one.severity == "error")
    if errors:
        raise CourseError(
            "this machine is not ready for lab " + " and lab ".join(labs),
            why="\n".join(f"{one.check}: {one.message}. {one.remedy}" for one in errors),
            do="Mend this and run again; `course doctor` looks at everything, `course doctor --fix` mends what it can.",
        )


def mend(findings: Sequence[Finding], lab: str | None) -> list[Finding]:
    """Calls the fix of each finding that has one, and looks again.

    Returns:
        What was found afterwards; a fix that failed comes first, with its reason.
    """
    failed: list[Finding] = []
    mendable = [finding for finding in findings if finding.fix is not None]
    for finding in mendable:
        assert finding.fix is not None
        try:
            finding.fix()
        except CourseError as problem:
            failed.append(
                replace(
                    error(f"could not be mended: {problem.what}", problem.do or finding.remedy), check=finding.check
                )
            )
    return [*failed, *examine(lab)] if mendable else list(findings)
