"""The installed Python packages against the lock: what somebody's `pip install` changed is found before it bites."""

from __future__ import annotations

import importlib.metadata
import sys
from pathlib import Path

from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from course_lib import shell
from course_lib.doctor.check import Check
from course_lib.doctor.finding import Finding, ok, warning
from course_lib.doctor.machine import Machine
from course_lib.settings import CHECKOUT

_LOCK = CHECKOUT / "requirements.txt"
_MARK = ".installed-requirements.txt"
"""What bootstrap.sh leaves in .venv; without it, it compares and installs anew."""


def locked(lock: Path) -> dict[str, Requirement]:
    """What the lock wants on this system and this Python: requirements whose markers hold here, by name."""
    here = {key: str(value) for key, value in default_environment().items()}
    lines = (line.rstrip("\\ ") for line in lock.read_text().splitlines() if line[:1].isalnum())
    wanted = (Requirement(line) for line in lines)
    return {canonicalize_name(r.name): r for r in wanted if r.marker is None or r.marker.evaluate(here)}


def mismatches(wanted: dict[str, Requirement], installed: dict[str, str]) -> list[str]:
    """What is missing or of another version, in the lock's order."""
    said = []
    for name, requirement in wanted.items():
        if name not in installed:
            said.append(f"{name} is missing, the lock has {requirement.specifier}")
        elif not requirement.specifier.contains(installed[name], prereleases=True):
            said.append(f"{name} is {installed[name]}, the lock has {requirement.specifier}")
    return said


def installed_versions() -> dict[str, str]:
    found = ((d.metadata["Name"], d.version) for d in importlib.metadata.distributions())
    return {canonicalize_name(name): version for name, version in found if name}


def install_again() -> None:
    """Runs the bootstrap as if for the first time: it takes out what is foreign and puts in what is missing."""
    (CHECKOUT / ".venv" / _MARK).unlink(missing_ok=True)
    shell.run([str(CHECKOUT / "bootstrap.sh")], timeout=900, cwd=CHECKOUT)


def examine(machine: Machine) -> list[Finding]:
    wanted = locked(_LOCK)
    wrong = mismatches(wanted, installed_versions())
    python = f"Python {sys.version_info.major}.{sys.version_info.minor}.{sys.version_info.micro}"
    if not wrong:
        return [ok(f"{python}, {len(wanted)} packages as the lock has them")]
    more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
    if Path(sys.prefix).resolve() != (CHECKOUT / ".venv").resolve():
        return [
            warning(
                f"{wrong[0]}{more}: this is the Python of {sys.prefix}, not the course's",
                "Run `make doctor`, or `.venv/bin/course doctor`: they use the course's own environment.",
            )
        ]
    remedy = f"Run `rm -f .venv/{_MARK} && ./bootstrap.sh`, which installs what the lock says."
    return [warning(f"{wrong[0]}{more}", remedy, fix=install_again)]


CHECK = Check("environment", examine)
