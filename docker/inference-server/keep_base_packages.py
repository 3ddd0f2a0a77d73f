"""Prints the part of the lock to install over a base image that brings packages of its own, such as NGC's with its torch.

Usage: keep_base_packages.py requirements.txt pyproject.toml > install.txt

NGC's image carries hundreds of packages compiled to fit each other, and a locked numpy on top would shadow the one that its
torch was built with. So what the base has stays the base's. Only where its version is outside what the server asks for
(pyproject.toml) is the locked one installed on top, and only if every package of the base that uses it can live with that;
otherwise the build ends in a sentence that names the base as the wrong one.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path

try:
    from packaging.requirements import InvalidRequirement, Requirement
except ImportError:  # a base without it has pip, which brings its own copy
    from pip._vendor.packaging.requirements import (  # type: ignore[assignment]  # the same class under another name
        InvalidRequirement,
        Requirement,
    )


class BaseUnfit(Exception):
    """The base image can't carry the server, in one sentence."""


def normalised(name: str) -> str:
    """A distribution's name as the index spells it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def entries(lock: str) -> dict[str, tuple[str, str]]:
    """A hashed lock as {name: (version, text)}; an entry's text is its line with the lines that continue it.

    A lock for every platform has entries for others, too, and two of a package that is not the same everywhere: what is not
    for this Python on this platform is left out.
    """
    found: dict[str, tuple[str, list[str]]] = {}
    current: list[str] = []
    for line in lock.splitlines():
        if line[:1].isalnum():
            pinned = Requirement(line.rstrip("\\ "))
            current = [line]
            if pinned.marker is None or pinned.marker.evaluate():
                found[normalised(pinned.name)] = (str(pinned.specifier).removeprefix("=="), current)
        elif line[:1].isspace():
            current.append(line)
    return {name: (version, "\n".join(lines)) for name, (version, lines) in found.items()}


def to_install(
    lock: str, present: Mapping[str, str], needed: Iterable[str], users: Mapping[str, Iterable[tuple[str, str]]]
) -> str:
    """The entries of ``lock`` that have to be installed over a base.

    Args:
        lock: a requirements file with one ``name==version`` an entry.
        present: the base's packages, name to version.
        needed: the server's own requirements, such as ``fastapi>=0.115``.
        users: by package, (name, requirement) of each package in the base that uses it.

    Raises:
        BaseUnfit: the base's version of a package is too old for the server, and the locked one would break the base.
    """
    have = {normalised(name): version for name, version in present.items()}
    wants = {normalised(requirement.name): requirement for requirement in map(Requirement, needed)}
    kept: list[str] = []
    for name, (version, text) in entries(lock).items():
        if name in have:
            want = wants.get(name)
            if want is None or want.specifier.contains(have[name], prereleases=True):
                continue
            for user, requirement in users.get(name, ()):
                if not Requirement(requirement).specifier.contains(version, prereleases=True):
                    raise BaseUnfit(
                        f"The base image has {name} {have[name]}, the server needs {want.specifier}, and the base's {user} "
                        f"can't live with {version} ({requirement}): choose a base with a newer {user}."
                    )
        kept.append(text)
    return "\n".join([*kept, ""])


def used_by() -> dict[str, list[tuple[str, str]]]:
    """For each package, which installed packages require it, and in which versions; extras are left out."""
    found: dict[str, list[tuple[str, str]]] = {}
    for dist in metadata.distributions():
        for text in dist.requires or []:
            try:
                requirement = Requirement(text)
            except InvalidRequirement:  # an old package's own mistake
                continue
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                found.setdefault(normalised(requirement.name), []).append((str(dist.metadata["Name"]), text))
    return found


if __name__ == "__main__":
    here = {str(dist.metadata["Name"]): dist.version for dist in metadata.distributions()}
    server = tomllib.loads(Path(sys.argv[2]).read_text(encoding="utf-8"))["project"]["dependencies"]
    try:
        sys.stdout.write(to_install(Path(sys.argv[1]).read_text(encoding="utf-8"), here, server, used_by()))
    except BaseUnfit as unfit:
        sys.exit(str(unfit))
