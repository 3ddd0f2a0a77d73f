"""Can containers have this machine's GPU? That takes a driver that works and NVIDIA's container toolkit."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from course_lib.doctor.check import Check
from course_lib.doctor.finding import Finding, error, note, ok, warning
from course_lib.doctor.machine import Machine

#: Where specifications of the Container Device Interface (CDI) are kept; the engine may name more.
_CDI_FOLDERS = ("/etc/cdi", "/var/run/cdi")

_INSTALL = "Install NVIDIA's package nvidia-container-toolkit, run `sudo nvidia-ctk runtime configure --runtime=docker`, and restart Docker."


def cdi_specs(folders: Sequence[str]) -> list[Path]:
    """CDI specifications that name NVIDIA devices."""
    found = [p for folder in folders for p in sorted(Path(folder).glob("*")) if p.suffix in (".json", ".yaml", ".yml")]
    return [p for p in found if "nvidia.com/gpu" in p.read_text(errors="replace")]


def examine(machine: Machine) -> list[Finding]:
    gpus = machine.gpus
    if gpus.complaint:
        weight = error if machine.wants_gpu else warning
        return [
            weight(
                f"the NVIDIA driver does not work: {gpus.complaint}",
                "After a driver update restart the machine; otherwise install the driver again.",
            )
        ]
    if not gpus.found:
        if machine.wants_gpu:
            return [
                error(
                    "PROFILE=gpu, but no NVIDIA GPU is to be seen (no `nvidia-smi`)",
                    "Install NVIDIA's driver, or leave PROFILE out: the labs then take the CPU path.",
                )
            ]
        return [
            note("no NVIDIA GPU here: the labs take the CPU path, and the GPU step reads back the engine's refusal")
        ]
    names = ", ".join(f"{gpu.name} (driver {gpu.driver}, compute capability {gpu.capability})" for gpu in gpus.found)
    ways = _ways(machine)
    if not ways:
        weight = error if machine.wants_gpu else warning
        return [weight(f"{names}, but no NVIDIA container toolkit: containers can't have it", _INSTALL)]
    return [ok(f"{names}; containers get it by {' and '.join(ways)}")]


def _ways(machine: Machine) -> list[str]:
    """How the engine can hand a GPU to a container."""
    ways = []
    if "nvidia" in (machine.info.get("Runtimes") or {}) or shutil.which("nvidia-container-runtime-hook"):
        ways.append("the NVIDIA runtime")
    if specs := cdi_specs(machine.info.get("CDISpecDirs") or _CDI_FOLDERS):
        ways.append(f"CDI ({specs[0]})")
    return ways


CHECK = Check("NVIDIA toolkit", examine)
