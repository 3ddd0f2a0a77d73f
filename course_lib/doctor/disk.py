"""Room for images: the disk of the engine's data root, and the checkout's where that is another."""

from __future__ import annotations

import shutil
from pathlib import Path

from course_lib.doctor.check import Check
from course_lib.doctor.finding import Finding, error, note, ok, warning
from course_lib.doctor.machine import Machine
from course_lib.settings import CHECKOUT, Profile

GB = 1_000_000_000
#: Free space under which a lab fails, and under which it may.
LIMITS: dict[Profile, tuple[int, int]] = {"cpu": (5 * GB, 15 * GB), "gpu": (35 * GB, 50 * GB)}
_DEFAULT_ROOT = "/var/lib/docker"


def judge(path: Path, least: int, good: int) -> Finding:
    """Free space at a path, for a user without root's reserve."""
    free = shutil.disk_usage(path).free
    message = f"{free / GB:,.1f} GB free at {path}"
    remedy = "Run `course cleanup --all` for what the course keeps; `docker system df` lists what else is large, `docker builder prune` frees old build cache."
    if free < least:
        return error(f"{message}; the labs need {least / GB:.0f} GB", remedy)
    if free < good:
        return warning(f"{message}; {good / GB:.0f} GB are comfortable", remedy)
    return ok(message)


def examine(machine: Machine) -> list[Finding]:
    least, good = LIMITS[machine.profile]
    root = Path(machine.engine.data_root or _DEFAULT_ROOT)
    findings = []
    if root.exists():
        findings.append(judge(root, least, good))
    elif machine.engine.usable:
        findings.append(
            note(
                "the engine's disk is inside a virtual machine (Docker Desktop)",
                f"See that it has {good / GB:.0f} GB free: Docker Desktop's Settings, Resources.",
            )
        )
    if not root.exists() or root.stat().st_dev != CHECKOUT.stat().st_dev:
        findings.append(judge(CHECKOUT, 1 * GB, 3 * GB))
    return findings


CHECK = Check("disk", examine)
