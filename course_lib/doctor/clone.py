"""The clone itself: scripts with Windows' line ends don't run, and a clone on a Windows drive is slow."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from pathlib import Path

from course_lib.doctor.check import Check
from course_lib.doctor.finding import Finding, error, ok, warning
from course_lib.doctor.machine import Machine
from course_lib.settings import CHECKOUT

#: What a shell, make or BuildKit reads line by line.
_READ_BY_LINE = ("*.sh", "Makefile", "**/Dockerfile*", "docker/**/*.sh", "solutions/**/*.sh", ".ci/run")


def with_windows_line_ends(root: Path) -> list[Path]:
    """Scripts, Makefiles and Dockerfiles whose lines end in CR LF."""
    hidden = {".venv", ".cache", ".git", "work", "node_modules"}
    candidates = {p for pattern in _READ_BY_LINE for p in root.glob(pattern) if p.is_file()}
    own = (p for p in candidates if not hidden & set(p.relative_to(root).parts))
    return sorted(p for p in own if b"\r\n" in p.read_bytes())


def judge(root: Path, kernel: str) -> Iterator[Finding]:
    """Findings about the clone at `root` on a system whose kernel calls itself `kernel`."""
    wrong = with_windows_line_ends(root)
    if wrong:
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        yield error(
            f"{wrong[0].relative_to(root)}{more} has Windows line ends, with which it does not run",
            "Run `git config core.autocrlf input`, then `git rm -rq --cached . && git reset -q --hard` (commit your own changes first), or clone inside WSL.",
        )
    if "microsoft" in kernel.lower() and root.parts[1:2] == ("mnt",):
        yield warning(
            f"the clone is on a Windows drive ({root}), where builds are many times slower",
            "Clone into your Linux home (`cd ~`) instead.",
        )
    elif not wrong:
        yield ok("scripts and Dockerfiles have Unix line ends")


def examine(machine: Machine) -> list[Finding]:
    return list(judge(CHECKOUT, platform.release()))


CHECK = Check("clone", examine)
