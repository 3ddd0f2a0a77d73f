"""Which of the two image stores the engine uses: they differ in what they can hold, and in how sizes read."""

from __future__ import annotations

from typing import Any

from course_lib.doctor.check import Check
from course_lib.doctor.finding import Finding, note, ok, warning
from course_lib.doctor.machine import Machine

#: Drivers that copy whole layers: correct, and slow and large enough to spoil a lab.
_SLOW = ("vfs", "devicemapper", "aufs")


def judge(info: dict[str, Any]) -> Finding:
    """Pure: `docker info` in, a finding out."""
    driver = str(info.get("Driver", ""))
    if any("io.containerd.snapshotter" in str(value) for _, value in info.get("DriverStatus") or []):
        return note(
            f"images are in containerd's store (snapshotter {driver}): it holds several platforms of one image, and its sizes count the compressed layers, too"
        )
    if driver in _SLOW:
        return warning(
            f"images are in the store {driver}, which copies every layer whole",
            "Put the engine's data on ext4 or xfs, where it uses overlay2; look at `docker info` for its reason.",
        )
    return ok(f"images are in the engine's classic store ({driver}), which holds one platform of each image")


def examine(machine: Machine) -> list[Finding]:
    return [judge(machine.info)]


CHECK = Check("image store", examine, needs_engine=True)
