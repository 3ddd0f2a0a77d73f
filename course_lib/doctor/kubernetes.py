"""kind and kubectl, which only the Kubernetes lab uses."""

from __future__ import annotations

import shutil

from course_lib.doctor.check import Check
from course_lib.doctor.finding import Finding, error, note, ok
from course_lib.doctor.machine import Machine

LAB = "4.4.5"
_PROGRAMS = ("kind", "kubectl")


def examine(machine: Machine) -> list[Finding]:
    missing = [program for program in _PROGRAMS if shutil.which(program) is None]
    if not missing:
        return [ok(f"{' and '.join(_PROGRAMS)} are here")]
    message = f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not installed; only lab {LAB} uses {'it' if len(missing) == 1 else 'them'}"
    remedy = f"Before lab {LAB}, install {' and '.join(missing)}: packages of Debian 13 and Homebrew, or https://kind.sigs.k8s.io and https://kubernetes.io/docs/tasks/tools/."
    return [error(message, remedy) if machine.lab == LAB else note(message, remedy)]


CHECK = Check("Kubernetes", examine, labs=(LAB,))
