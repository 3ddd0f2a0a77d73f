"""Traces as JSON."""

from collections.abc import Mapping
from datetime import UTC, datetime
from itertools import islice

from trace_receiver.store import Store, Trace

MILLISECOND = 10**6
LAST_YEAR = 253402300799 * 10**9  # the end of 9999, the last that datetime knows

Json = Mapping[str, object]


def milliseconds(nanoseconds: int) -> float:
    """To the microsecond."""
    return round(nanoseconds / MILLISECOND, 3)


def moment(nanoseconds: int) -> str:
    """As ISO 8601 in UTC."""
    return datetime.fromtimestamp(min(nanoseconds, LAST_YEAR) / 10**9, UTC).isoformat(timespec="milliseconds")


def listed(store: Store, limit: int) -> list[Json]:
    """The newest traces, in a line each."""
    return [_head(trace) for trace in islice(store.newest(), limit)]


def whole(trace: Trace) -> Json:
    """A trace with its spans, sorted by when they began."""
    start = trace.start
    return {
        **_head(trace),
        "spans": [
            {
                "id": span.span_id,
                "parent": span.parent or None,
                "service": span.service,
                "name": span.name,
                "kind": span.kind.name.lower(),
                "start_ms": milliseconds(span.start - start),
                "duration_ms": milliseconds(span.duration),
                "status": span.status.name.lower(),
                "message": span.message,
                "attributes": dict(span.attributes),
            }
            for span in trace.by_start()
        ],
    }


def _head(trace: Trace) -> dict[str, object]:
    return {
        "id": trace.id,
        "root": trace.root.name,
        "started": moment(trace.start),
        "duration_ms": milliseconds(trace.duration),
        "services": trace.services,
        "span_count": len(trace.spans),
        "failed": trace.failed,
    }
