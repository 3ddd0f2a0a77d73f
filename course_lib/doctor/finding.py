"""What a check found: how bad it is, in one sentence, and the sentence that says what to do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

Severity = Literal["ok", "note", "warning", "error"]
Fix = Callable[[], object]


@dataclass(frozen=True)
class Finding:
    """One thing a check saw.

    `ok` is as it should be, a `note` is worth knowing, with a `warning` a lab may fail, with an `error` it will.
    """

    severity: Severity
    message: str
    remedy: str = ""
    """What a person can do, an imperative sentence; every warning and error has one."""
    fix: Fix | None = field(default=None, compare=False)
    """What `course doctor --fix` calls, where the machine can do it itself."""
    check: str = ""
    """The check's name; filled in by whoever ran it."""

    def as_json(self) -> dict[str, object]:
        return {
            "check": self.check,
            "severity": self.severity,
            "message": self.message,
            "remedy": self.remedy,
            "fixable": self.fix is not None,
        }


def ok(message: str) -> Finding:
    return Finding("ok", message)


def note(message: str, remedy: str = "") -> Finding:
    return Finding("note", message, remedy)


def warning(message: str, remedy: str, fix: Fix | None = None) -> Finding:
    return Finding("warning", message, remedy, fix)


def error(message: str, remedy: str, fix: Fix | None = None) -> Finding:
    return Finding("error", message, remedy, fix)
