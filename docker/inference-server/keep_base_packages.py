"""Prints the lock without what the base image already has, so that NGC's torch keeps the packages it was built against.

Usage: keep_base_packages.py requirements.txt > install.txt

NGC's image carries hundreds of packages compiled to fit each other. A locked numpy on top of it would shadow the one that
its torch was built with, so a package the base has stays the base's; only what is missing is installed, with its hashes.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path


def normalised(name: str) -> str:
    """A distribution's name as the index spells it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def missing_only(lock: str, present: Iterable[str]) -> str:
    """The entries of a hashed lock whose package is not present; an entry is a line with its continuation lines."""
    have = {normalised(name) for name in present}
    kept: list[str] = []
    keeping = True
    for line in lock.splitlines():
        if line and not line[0].isspace() and not line.startswith("#"):
            keeping = normalised(re.split(r"[=<>!~;\s\[]", line, maxsplit=1)[0]) not in have
        if keeping:
            kept.append(line)
    return "\n".join(kept) + "\n"


if __name__ == "__main__":
    here = [dist.metadata["Name"] for dist in metadata.distributions()]
    sys.stdout.write(missing_only(Path(sys.argv[1]).read_text(), here))
