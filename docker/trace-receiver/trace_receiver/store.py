"""The last traces, in memory: bounded in their number, in the spans of each, and in bytes."""

from collections import Counter, OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field

from trace_receiver.spans import Span, Status

SHARE_OF_ONE = 8
"""One trace gets at most this part of the memory, so that a giant does not drive out all others."""


@dataclass(slots=True)
class Trace:
    """The spans that came so far, by their ids. They come in any order: those who finish first, first."""

    id: str
    spans: dict[str, Span] = field(default_factory=dict)
    size: int = 0

    def by_start(self) -> list[Span]:
        """All spans, in the order in which they began."""
        return sorted(self.spans.values(), key=lambda span: (span.start, -span.end))

    @property
    def root(self) -> Span:
        """The first span without a parent; the first of all while that has not come."""
        ordered = self.by_start()
        return next((span for span in ordered if not span.parent), None) or next(
            (span for span in ordered if span.parent not in self.spans), ordered[0]
        )

    @property
    def start(self) -> int:
        """Nanoseconds since 1970 at which its first span began."""
        return min(span.start for span in self.spans.values())

    @property
    def duration(self) -> int:
        """Nanoseconds from its first begin to its last end."""
        return max(span.start + span.duration for span in self.spans.values()) - self.start

    @property
    def services(self) -> list[str]:
        """Each service, in the order in which they were reached, those that are only seen through a client's span with them."""
        parents = {span.parent for span in self.spans.values()}
        found: dict[str, None] = {}
        for span in self.by_start():
            found[span.service] = None
            if span.peer and span.span_id not in parents:  # the peer sent nothing itself
                found[span.peer] = None
        return list(found)

    @property
    def failed(self) -> bool:
        """Whether any span of it ended in an error."""
        return any(span.status is Status.ERROR for span in self.spans.values())

    def tree(self) -> list[tuple[int, Span]]:
        """Every span once with its depth, children after their parent in the order in which they began.

        Parents that never came, and spans that claim to be each other's parents, begin at depth 0.
        """
        children: dict[str, list[Span]] = {}
        ordered = self.by_start()
        for span in ordered:
            children.setdefault(span.parent, []).append(span)
        found: dict[str, tuple[int, Span]] = {}
        tops = [span for span in ordered if span.parent not in self.spans]
        for top in [*tops, *ordered]:  # the second time round only those that are in a ring are left
            waiting = [(0, top)]
            while waiting:
                depth, span = waiting.pop()
                if span.span_id not in found:
                    found[span.span_id] = (depth, span)
                    waiting += [(depth + 1, child) for child in reversed(children.get(span.span_id, []))]
        return list(found.values())


class Store:
    """The traces that are kept, oldest first.

    Args:
        max_traces, max_spans, max_bytes: see Settings.
    """

    def __init__(self, max_traces: int, max_spans: int, max_bytes: int) -> None:
        self._max_traces, self._max_spans, self._max_bytes = max_traces, max_spans, max_bytes
        self._traces: OrderedDict[str, Trace] = OrderedDict()  # a dict is slow to lose its first entry again and again
        self.size = 0
        self.spans = 0
        self.dropped: Counter[str] = Counter()
        """Spans that were not kept, by reason; those of evicted traces under `evicted`."""

    def add(self, span: Span) -> None:
        """Keep a span; one with the id of another in its trace replaces it, as when a sender tries again."""
        trace = self._traces.get(span.trace_id) or Trace(span.trace_id)
        before = trace.spans.get(span.span_id)
        more = span.size - (before.size if before else 0)
        if before is None and len(trace.spans) >= self._max_spans:
            self.dropped["too_many_spans"] += 1
            return
        if trace.size + more > self._max_bytes // SHARE_OF_ONE:
            self.dropped["trace_too_large"] += 1
            return
        self._traces[span.trace_id] = trace
        trace.spans[span.span_id] = span
        trace.size += more
        self.size += more
        self.spans += before is None
        while len(self._traces) > self._max_traces or self.size > self._max_bytes:
            # Never the trace that was added to: it is at most an eighth of what there is room for.
            self._evict(next(id for id in self._traces if id != span.trace_id))

    def _evict(self, id: str) -> None:
        gone = self._traces.pop(id)
        self.size -= gone.size
        self.spans -= len(gone.spans)
        self.dropped["evicted"] += len(gone.spans)

    def get(self, id: str) -> Trace | None:
        """A trace by its id in hexadecimal."""
        return self._traces.get(id)

    def newest(self) -> Iterator[Trace]:
        """Newest first, by when their first span came: what clocks say may be wrong."""
        return reversed(self._traces.values())

    def __len__(self) -> int:
        return len(self._traces)
