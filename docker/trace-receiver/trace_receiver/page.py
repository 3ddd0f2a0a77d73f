"""The page: the newest traces, or one of them as a waterfall. Plain HTML without scripts; names are escaped by Jinja."""

from dataclasses import dataclass

from jinja2 import Environment, PackageLoader
from starlette.responses import HTMLResponse

from trace_receiver import shown
from trace_receiver.spans import Span, Status
from trace_receiver.store import Store, Trace

LISTED = 100
DEEPEST = 12  # further in there would be no room left for names
# Dark enough for white text, and apart from each other for those who see few colours; red is for errors alone.
COLOURS = ("#0b5cad", "#6b3fa0", "#00695c", "#8a5a00", "#37474f", "#7a1f5c")
HEADERS = {
    # Nothing on this page comes from elsewhere or runs, whatever a span is called.
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}

_pages = Environment(loader=PackageLoader("trace_receiver", "."), autoescape=True, trim_blocks=True, lstrip_blocks=True)


@dataclass(frozen=True, slots=True)
class Bar:
    """A span's line in the waterfall; ``left`` and ``width`` in percent of the trace."""

    span: Span
    depth: int
    left: float
    width: float
    colour: str
    start_ms: float
    duration_ms: float
    failed: bool


def answer(store: Store, id: str | None) -> HTMLResponse:
    """The list, or one trace; 404 for one that is not kept."""
    if id is None:
        text = _pages.get_template("list.html.j2").render(traces=shown.listed(store, LISTED), kept=len(store))
        return HTMLResponse(text, headers=HEADERS)
    trace = store.get(id.lower())
    if trace is None:
        return HTMLResponse(_pages.get_template("gone.html.j2").render(), 404, HEADERS)
    text = _pages.get_template("trace.html.j2").render(
        trace=shown.whole(trace), bars=bars(trace), colours=colours(trace)
    )
    return HTMLResponse(text, headers=HEADERS)


def colours(trace: Trace) -> dict[str, str]:
    """Each service's colour."""
    return {service: COLOURS[place % len(COLOURS)] for place, service in enumerate(trace.services)}


def bars(trace: Trace) -> list[Bar]:
    """The waterfall, children under their parents."""
    start, whole = trace.start, trace.duration or 1
    colour = colours(trace)
    return [
        Bar(
            span=span,
            depth=min(depth, DEEPEST),
            left=round(100 * (span.start - start) / whole, 3),
            width=round(100 * span.duration / whole, 3),
            colour=colour[span.service],
            start_ms=shown.milliseconds(span.start - start),
            duration_ms=shown.milliseconds(span.duration),
            failed=span.status is Status.ERROR,
        )
        for depth, span in trace.tree()
    ]
