"""Memory: the machine's, and what the engine may use of it (a virtual machine's share, with Docker Desktop)."""

from __future__ import annotations

import psutil

from course_lib.doctor.check import Check
from course_lib.doctor.finding import Finding, error, ok, warning
from course_lib.doctor.machine import Machine

GB = 1_000_000_000
LEAST, GOOD = 2 * GB, 4 * GB


def judge(total: int, engines: int, unified: bool) -> Finding:
    """Pure: bytes of the machine, bytes of the engine (0 where none answers), and whether a GPU shares them."""
    usable = engines or total
    message = f"{total / GB:,.1f} GB in this machine"
    if engines and engines < 0.95 * total:
        message += f", {engines / GB:,.1f} GB for the engine"
        remedy = (
            "Give Docker Desktop more: Settings, Resources, Memory (in WSL: `memory=8GB` under [wsl2] in .wslconfig)."
        )
    else:
        remedy = "Close other programs, or use a larger machine."
    if usable < LEAST:
        return error(f"{message}; the labs need {LEAST / GB:.0f} GB", remedy)
    # A little less than 4 GB is what a machine sold with 4 has.
    if usable < 0.9 * GOOD:
        return warning(f"{message}; {GOOD / GB:.0f} GB are comfortable", remedy)
    if unified:
        message += ", which GPU and processor share: what a model takes is missing elsewhere (`free -h` shows it, `nvidia-smi` does not)"
    return ok(message)


def examine(machine: Machine) -> list[Finding]:
    unified = any(gpu.unified_memory for gpu in machine.gpus.found)
    return [judge(psutil.virtual_memory().total, machine.engine.memory_bytes, unified)]


CHECK = Check("memory", examine)
