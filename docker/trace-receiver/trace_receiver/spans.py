"""One span, in the form in which it is kept and shown, cut to a bounded size whoever sent it."""

import math
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum

MOST_ATTRIBUTES = 64
MOST_KEY = 128
MOST_TEXT = 1024
MOST_NAME = 256
OVERHEAD_BYTES = 600  # of a span beside its texts: the object, its dictionary, its numbers

Value = str | int | float | bool


class Kind(IntEnum):
    """OpenTelemetry's SpanKind."""

    UNSPECIFIED = 0
    INTERNAL = 1
    SERVER = 2
    CLIENT = 3
    PRODUCER = 4
    CONSUMER = 5


class Status(IntEnum):
    """OpenTelemetry's StatusCode."""

    UNSET = 0
    OK = 1
    ERROR = 2


@dataclass(frozen=True, slots=True)
class Span:
    """Ids in hexadecimal, ``parent`` empty for the first span of a trace; times in nanoseconds since 1970."""

    trace_id: str
    span_id: str
    parent: str
    service: str
    name: str
    kind: Kind
    start: int
    end: int
    status: Status
    message: str
    """What went wrong, where the sender says so."""
    attributes: Mapping[str, Value]

    @property
    def peer(self) -> str:
        """The service that a client's span asked; empty where it does not say."""
        return str(self.attributes.get("peer.service", "")) if self.kind in (Kind.CLIENT, Kind.PRODUCER) else ""

    @property
    def duration(self) -> int:
        """Nanoseconds; 0 for a span that claims to end before it began, as when a clock was set back."""
        return max(0, self.end - self.start)

    @property
    def size(self) -> int:
        """Bytes of memory, about."""
        texts = [self.trace_id, self.span_id, self.parent, self.service, self.name, self.message]
        for key, value in self.attributes.items():
            texts += [key, value if isinstance(value, str) else ""]
        return OVERHEAD_BYTES + sum(map(sys.getsizeof, texts))


def cut(text: str, most: int = MOST_TEXT) -> str:
    """At most so many characters, and none that UTF-8 can't carry."""
    text = text if len(text) <= most else text[: most - 1] + "…"
    return text.encode("utf-8", "replace").decode()


def attributes(pairs: Iterable[tuple[str, Value]]) -> dict[str, Value]:
    """The first so many, each cut; infinite numbers, which JSON has no word for, become texts."""
    kept: dict[str, Value] = {}
    for key, value in pairs:
        if len(kept) == MOST_ATTRIBUTES:
            break
        if isinstance(value, str) or (isinstance(value, float) and not math.isfinite(value)):
            value = cut(str(value))
        kept[cut(key, MOST_KEY)] = value
    return kept
