"""What a cluster on this machine needs beside Docker, which only the Kubernetes lab starts."""

from __future__ import annotations

import shutil
from pathlib import Path

from course_lib.doctor.check import Check
from course_lib.doctor.finding import Finding, note, ok, warning
from course_lib.doctor.machine import Machine
from course_lib.settings import settings

LAB = "4.4.5"
_PROGRAMS = ("kind", "kubectl")
_INOTIFY = Path("/proc/sys/fs/inotify")
#: What systemd, the kubelet and containerd of three nodes get by with; kind's own advice is 512 and 524288.
_LEAST = {"max_user_instances": 128, "max_user_watches": 65_536}


def examine(machine: Machine) -> list[Finding]:
    if settings().target == "kube-context":  # no cluster is made on this machine
        return [_programs(("kubectl",))]
    return [_programs(_PROGRAMS), *_watches(_INOTIFY)]


def _programs(wanted: tuple[str, ...]) -> Finding:
    missing = [program for program in wanted if shutil.which(program) is None]
    if not missing:
        return ok(f"{' and '.join(wanted)} {'is' if len(wanted) == 1 else 'are'} here")
    return note(
        f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not installed; "
        f"lab {LAB} fetches {'it' if len(missing) == 1 else 'them'} into .cache when it starts its first cluster",
        "For your own use, too: packages of Debian 13 and of Homebrew, or the releases that k8s/kind/tools.toml names.",
    )


def _watches(folder: Path) -> list[Finding]:
    """Linux counts watched files for the whole machine; each node watches many."""
    short = {}
    for name, least in _LEAST.items():
        file = folder / name
        if file.exists() and int(file.read_text()) < least:
            short[name] = int(file.read_text())
    if not short:
        return []
    said = ", ".join(f"fs.inotify.{name} is {value}" for name, value in short.items())
    return [
        warning(
            f"{said}: a cluster of several nodes may stop with `too many open files`",
            "As root: `sysctl fs.inotify.max_user_instances=512 fs.inotify.max_user_watches=524288`.",
        )
    ]


CHECK = Check("Kubernetes", examine, labs=(LAB, "rollouts"))
