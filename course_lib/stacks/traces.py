"""One request's way through the stack, as the trace receiver pieced it together."""

from __future__ import annotations

from typing import Any

import httpx
import pandas as pd

from course_lib import waits
from course_lib.errors import CourseError
from course_lib.lab.steps import record
from course_lib.stacks.stack import Stack


def trace(
    stack: Stack,
    trace_id: str,
    *,
    services: tuple[str, ...] = ("proxy", "rag", "inference"),
    asked: tuple[str, ...] = ("chroma",),
    timeout: float = 60,
) -> pd.DataFrame:
    """The spans of a trace, as a data frame: service, name, start and duration in milliseconds, in order.

    Services send their spans in batches, so a trace is whole some seconds after its request.

    Args:
        services: those that have to have spans in it.
        asked: those that send none for it, and have to be seen from outside: by a span of who asked them.

    Raises:
        CourseError: the trace did not get whole in time.
    """
    if not trace_id:
        raise CourseError("the answer came without a trace id", do="Was it asked through the stack's front door?")
    address = f"http://127.0.0.1:{stack.port('traces', 4318)}/traces/{trace_id}"

    def probe() -> list[dict[str, Any]]:
        try:
            with httpx.Client(timeout=10, trust_env=False) as http:
                answer = http.get(address)
        except httpx.TimeoutException as slow:
            raise waits.NotYet(str(slow)) from None
        if answer.status_code == 404:
            raise waits.NotYet("no span of it has arrived")
        spans: list[dict[str, Any]] = answer.raise_for_status().json()["spans"]
        if missing := set(services) - {span["service"] for span in spans}:
            raise waits.NotYet(f"no span of {', '.join(sorted(missing))} yet")
        peers = {span["attributes"].get("peer.service") for span in spans if span["kind"] == "client"}
        if missing := set(asked) - peers:
            raise waits.NotYet(f"no span of a question to {', '.join(sorted(missing))} yet")
        return spans

    spans = waits.until(
        probe, what=f"the spans of trace {trace_id}", timeout=timeout,
        do="`stack.logs('traces')` and the services' own logs say whether spans were sent.",
    )  # fmt: skip
    record(
        "stack.trace", "otlp", trace_id, spans=len(spans), services=sorted({span["service"] for span in spans}), asked=asked,
        milliseconds=round(max(span["start_ms"] + span["duration_ms"] for span in spans), 1),
    )  # fmt: skip
    return pd.DataFrame(spans)
