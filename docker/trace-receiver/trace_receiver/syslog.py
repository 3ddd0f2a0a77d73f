"""nginx's log lines, sent as syslog over UDP, into spans of the service `proxy`.

A line is as RFC 3164 has it, ``<190>Nov 21 14:27:01 host nginx: {…}``; what is in the braces is docker/stack/nginx/trace_format.conf's.
"""

import asyncio
import json
import re
from collections.abc import Callable
from typing import Any

from trace_receiver.spans import MOST_NAME, Kind, Span, Status, Value, attributes, cut

LINE = re.compile(r"<\d{1,3}>[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d [^{]{0,300}?: (\{.*\})\s*", re.DOTALL)
TRACE_ID = re.compile(r"(?!0{32})[0-9a-f]{32}")
SPAN_ID = re.compile(r"(?!0{16})[0-9a-f]{16}")
SECONDS = re.compile(r"\d{1,10}(\.\d{1,9})?")
SERVICE = "proxy"
FAILED = 500
# What is in a line beside ids and times, by its name in OpenTelemetry's semantic conventions where they have one.
CONVENTIONS = {
    "method": "http.request.method",
    "path": "url.path",
    "status": "http.response.status_code",
    "port": "server.port",
    "request_id": "http.request.header.x-request-id",
    "upstream": "nginx.upstream.address",
    "upstream_status": "nginx.upstream.status",
    "upstream_seconds": "nginx.upstream.seconds",
}
NUMBERS = {"status", "port"}


class Malformed(Exception):
    """A line that is not one of ours; the message says what is wrong with it."""


def read(datagram: bytes) -> Span | None:
    """The span of one line; None where its client did not want it recorded.

    Raises:
        Malformed: it is no line of nginx's in our format.
    """
    found = LINE.fullmatch(datagram.decode("utf-8", "replace"))
    if not found:
        raise Malformed("no syslog line with JSON in it")
    try:
        fields = json.loads(found[1])
    except (ValueError, RecursionError):
        raise Malformed("what follows the tag is no JSON") from None
    if not all(isinstance(value, str) for value in fields.values()):
        raise Malformed("a value is not a string")
    trace_id, span_id, parent = (fields.get(name, "") for name in ("trace_id", "span_id", "parent_span_id"))
    if not (TRACE_ID.fullmatch(trace_id) and SPAN_ID.fullmatch(span_id)):
        raise Malformed("trace_id or span_id is missing or wrong")
    if not fields.get("flags", "01").endswith(tuple("13579bdf")):  # the last bit of the flags: sampled
        return None
    end = _nanoseconds(fields, "end")
    return Span(
        trace_id=trace_id,
        span_id=span_id,
        parent=parent if SPAN_ID.fullmatch(parent) else "",
        service=SERVICE,
        name=cut(f"{fields.get('method', '')} {fields.get('path', '')}".strip(), MOST_NAME),
        kind=Kind.SERVER,
        start=max(0, end - _nanoseconds(fields, "seconds")),
        end=end,
        status=Status.ERROR if _number(fields.get("status", "")) >= FAILED else Status.UNSET,
        message="",
        attributes=attributes(_attributes(fields)),
    )


def _attributes(fields: dict[str, str]) -> list[tuple[str, Value]]:
    present = [(key, fields[key]) for key in CONVENTIONS if fields.get(key, "-") not in ("", "-")]
    return [(CONVENTIONS[key], _number(value) if key in NUMBERS else value) for key, value in present]


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 6 else 0


def _nanoseconds(fields: dict[str, str], name: str) -> int:
    text = fields.get(name, "")
    if not SECONDS.fullmatch(text):
        raise Malformed(f"{name} is missing or no number of seconds")
    whole, _, part = text.partition(".")
    return int(whole) * 10**9 + int(part.ljust(9, "0"))


class Listener(asyncio.DatagramProtocol):
    """Takes lines for as long as its socket is open.

    Args:
        take: gets each span.
        malformed: called for each line that is none of ours.
    """

    def __init__(self, take: Callable[[Span], None], malformed: Callable[[], None]) -> None:
        self._take, self._malformed = take, malformed
        self.open = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio."""
        self.open = True

    def connection_lost(self, error: Exception | None) -> None:
        """See asyncio."""
        self.open = False

    def datagram_received(self, data: bytes, sender: tuple[str | Any, int]) -> None:
        """See asyncio."""
        try:
            span = read(data)
        except Malformed:
            self._malformed()
        else:
            if span:
                self._take(span)
