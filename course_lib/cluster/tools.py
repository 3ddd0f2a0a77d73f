"""Where `kind` and `kubectl` come from: the machine's own, a pinned release, or a Debian package."""

from __future__ import annotations

import re
import shutil
import tomllib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Literal

from course_lib import shell
from course_lib.errors import CourseError
from course_lib.host import releases, unpacked
from course_lib.settings import CHECKOUT

Source = Literal["registry", "debian"]

KIND = CHECKOUT / "k8s" / "kind"
_OLDEST_KIND = (0, 27)
_PINNED = KIND / "tools.toml"


def kind_version(program: Path) -> tuple[int, int]:
    """(major, minor) of a kind program; (0, 0) where it does not say."""
    said = shell.run([str(program), "version"], show=False, check=False, timeout=30).stdout
    found = re.search(r"(\d+)\.(\d+)\.\d+", said)
    return (int(found[1]), int(found[2])) if found else (0, 0)


@cache
def kind(source: Source, *, exactly: tuple[int, int] | None = None) -> Path:
    """The kind program.

    Args:
        source: `debian` fetches no release: where no image registry answers, no publisher's server does.
        exactly: the only (major, minor) that will do; by default any from 0.27 on.

    Raises:
        CourseError: none can be had; says where each source failed.
    """

    def unfit(program: Path) -> str:
        version = kind_version(program)
        fits = version == exactly if exactly else version >= _OLDEST_KIND
        wanted = f"{exactly[0]}.{exactly[1]}" if exactly else f"{_OLDEST_KIND[0]}.{_OLDEST_KIND[1]} or newer"
        return "" if fits else f"it is {version[0]}.{version[1]}, and {wanted} is needed"

    return _first("kind", source, unfit)


def node_of(program: Path) -> str:
    """The node image that the pinned kind release names, if a program is of that release; else empty: kind names its own."""
    pinned = tomllib.loads(_PINNED.read_text())["kind"]
    same = kind_version(program) == tuple(int(part) for part in pinned["version"].split(".")[:2])
    return str(pinned["node"]) if same else ""


@cache
def kubectl(source: Source) -> Path:
    """The kubectl program; any version of the last years speaks to the clusters of this course.

    Raises:
        CourseError: none can be had; says where each source failed.
    """
    return _first("kubectl", source, lambda _: "")


def _first(name: str, source: Source, unfit: Callable[[Path], str]) -> Path:
    """The first program that fits: on PATH, then of a release, which is newer than the distribution's, then of a package."""
    failures = []
    release, package = f"the release in {_PINNED.name}", "the distribution's package"
    sources: dict[str, Callable[[], Path]] = {}
    if own := shutil.which(name):
        sources[own] = lambda: Path(own)
    if source == "registry":
        sources[release] = lambda: releases.program(releases.Release.read(_PINNED, name))
    sources[package] = lambda: unpacked.program(name, name, says_version="--help", installed=False)
    for where, get in sources.items():
        try:
            program = get()
            reason = unfit(program)
        except CourseError as error:
            reason = f"{error.what}{f' ({error.why.splitlines()[-1]})' if error.why else ''}"
        else:
            if not reason:
                return program
        failures.append(f"{where}: {reason}")
    raise CourseError(
        f"{name} is not on this machine, and could not be had",
        why="\n".join(failures),
        do=f"Install {name} so that it is on PATH, and run the command again.",
    )
