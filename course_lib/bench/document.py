"""Figures in a document: a section between two markers, replaced as a whole."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

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
