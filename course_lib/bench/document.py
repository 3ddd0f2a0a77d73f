"""Figures in a document: a section between two markers, replaced as a whole."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from course_lib.errors import CourseError
from course_lib.settings import CHECKOUT

COMPARISONS = CHECKOUT / "COMPARISONS.md"


def write(name: str, section: str, document: Path = COMPARISONS) -> None:
    """Puts the section of `course bench NAME` between its markers.

    Raises:
        CourseError: the markers are not there.
    """
    begin, end = f"<!-- course bench {name}: begin -->", f"<!-- course bench {name}: end -->"
    text = document.read_text()
    pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.S)
    if not pattern.search(text):
        raise CourseError(
            f"{document.name} has no place for the figures", do=f"Put {begin} and {end} where they belong."
        )
    document.write_text(pattern.sub(lambda _: f"{begin}\n{section}\n{end}", text))


def table(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a Markdown table."""
    return ["| " + " | ".join(line) + " |" for line in (heads, ["---"] * len(heads), *lines)]


def read(file: Path, bench: str, parts: Collection[str]) -> dict[str, Any]:
    """Figures that `course bench BENCH --json FILE` wrote before.

    Args:
        parts: keys that they have to have.

    Raises:
        CourseError: the file is not there, or holds something else.
    """
    try:
        found = json.loads(file.read_text())
        if found["bench"] != bench or not set(parts) <= found.keys():
            raise ValueError("other figures")
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise CourseError(
            f"{file} holds no figures of `course bench {bench}`",
            why=str(error),
            do=f"Give a file that `course bench {bench} --json FILE` wrote.",
        ) from None
    return dict(found)


def preliminary(found: Mapping[str, Any]) -> str:
    """Said of figures that a quick run or a busy machine gave; empty for others."""
    if not found["preliminary"]:
        return ""
    load = found["machine"]["load_average_before"]
    return f" **Preliminary**: a quick run, or a machine with other work on it (load average {load:g} before it began)."
