"""Word lists and frames for text made by rule, from words.yaml."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import yaml


@cache
def _all() -> dict[str, dict[str, Any]]:
    data: dict[str, dict[str, Any]] = yaml.safe_load((Path(__file__).parent / "words.yaml").read_text(encoding="utf-8"))
    return data


def word_list(room: str, name: str) -> list[str]:
    """The list ``name`` of the module ``room``, in the file's order."""
    return [str(w) for w in _all()[room][name]]


def word_groups(room: str, name: str) -> list[list[str]]:
    """A list of lists, such as groups of synonyms."""
    return [[str(w) for w in group] for group in _all()[room][name]]
