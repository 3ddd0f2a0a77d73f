"""The NVIDIA GPUs of this machine, as its driver names them."""

from __future__ import annotations

import shutil
from dataclasses import dataclass

from course_lib import shell
from course_lib.errors import CourseError


@dataclass(frozen=True)
class Gpu:
    """One GPU: its name, the driver's version, and its compute capability (12.1 is what compilers call sm_121)."""

    name: str
    driver: str
    capability: str

    @property
    def unified_memory(self) -> bool:
        """GB10 has no memory of its own: it shares the machine's, so `nvidia-smi` reports none."""
        return "GB10" in self.name


@dataclass(frozen=True)
class Gpus:
    """All GPUs; or, where a driver is installed but does not work, what it said."""

    found: tuple[Gpu, ...] = ()
    complaint: str = ""


def parse(csv: str) -> tuple[Gpu, ...]:
    """The lines of `nvidia-smi --query-gpu=name,driver_version,compute_cap --format=csv,noheader`."""
    rows = [[cell.strip() for cell in line.rsplit(",", 2)] for line in csv.splitlines() if line.strip()]
    return tuple(Gpu(*row) for row in rows if len(row) == 3)


def look() -> Gpus:
    """Asks the driver; no `nvidia-smi` means no GPU that could be used."""
    if shutil.which("nvidia-smi") is None:
        return Gpus()
    query = ["nvidia-smi", "--query-gpu=name,driver_version,compute_cap", "--format=csv,noheader"]
    try:
        return Gpus(parse(shell.run(query, show=False, timeout=5).stdout))
    except shell.CommandError as failed:
        said = (failed.stderr.strip() or failed.stdout.strip()).splitlines()
        return Gpus(complaint=said[0] if said else "it did not answer within 5 s")
    except CourseError as failed:
        return Gpus(complaint=failed.what)
