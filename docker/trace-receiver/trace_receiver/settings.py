"""Settings from the environment, read once at the start; wrong values are refused in a sentence."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any


class StartError(Exception):
    """The receiver can't start; the message says what to do."""


def _number(default: int, low: int, high: int) -> Any:
    return field(default=default, metadata={"low": low, "high": high})


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything a person can set. The environment variable is the field's name in capitals."""

    host: str = "0.0.0.0"
    """Address to listen on."""
    port: int = _number(4318, 1, 65535)
    """TCP port for OTLP/HTTP, the page and everything else; 4318 is OTLP's own."""
    syslog_port: int = _number(5140, 0, 65535)
    """UDP port for nginx's lines; 0: none."""
    max_traces: int = _number(1000, 1, 1_000_000)
    """Traces that are kept; the oldest makes room."""
    max_spans: int = _number(1000, 1, 100_000)
    """Spans that are kept of one trace."""
    max_memory_bytes: int = _number(64 * 2**20, 2**20, 2**40)
    """Memory for all spans, about; the oldest trace makes room."""
    max_body_bytes: int = _number(4 * 2**20, 1024, 2**30)
    """Largest request body, unpacked; above it 413."""

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> "Settings":
        """From these variables, the defaults elsewhere.

        Raises:
            StartError: a value is not a whole number within its bounds.
        """
        given: dict[str, Any] = {}
        for each in fields(cls):
            name = each.name.upper()
            text = environment.get(name, "").strip()
            if not text:
                continue
            if not each.metadata:
                given[each.name] = text
                continue
            low, high = each.metadata["low"], each.metadata["high"]
            if not (text.isascii() and text.isdecimal() and len(text) < 20 and low <= int(text) <= high):
                raise StartError(f"{name}={text[:60]!r} is not a whole number from {low} to {high}.")
            given[each.name] = int(text)
        return cls(**given)
