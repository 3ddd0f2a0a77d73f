"""A step is what was read back: rooms record readings, a step without the ones it needs has not happened."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from course_lib.errors import CourseError
from course_lib.lab import catalog, display, store
from course_lib.lab.store import Evidence

_current: ContextVar[list[Evidence] | None] = ContextVar("evidence", default=None)


class StepNotProven(CourseError):
    """A step ended without reading back what it needs."""


def record(fact: str, backend: str, object: str, **read: Any) -> None:
    """Called by a subject room with what it just read from a backend. Outside a step it is not kept.

    Args:
        fact: the kind of reading, as the catalogue names it.
        backend: who answered: `docker`, `http`, `registry`, …
        object: what was asked about: an image reference, a container's name, a URL.
        read: the answer's fields.
    """
    found = _current.get()
    if found is not None:
        found.append(Evidence(fact, backend, object, read, time.time()))


@contextmanager
def step(step_id: str) -> Iterator[None]:
    """Does one step of the lab: what the rooms read inside it is its evidence.

    Raises:
        StepNotProven: the block ended, but something the step needs was never read back.
        CourseError: no such step; or whatever the block raised.
    """
    what = catalog.step(step_id)
    found: list[Evidence] = []
    token = _current.set(found)
    started = time.monotonic()
    store.save_step(step_id, "running", 0)
    try:
        yield
        missing = [fact for fact in what.needs if not any(one.fact == fact for one in found)]
        if missing:
            raise StepNotProven(
                f"step {step_id} ({what.title}) is not proven: nothing in it read {', '.join(missing)}",
                why=f"Read were: {', '.join(sorted({one.fact for one in found})) or 'nothing'}.",
                do="Keep the step's calls inside its `with lab.step(…)` block.",
            )
    except BaseException as error:
        store.save_step(step_id, "failed", time.monotonic() - started, str(error) or type(error).__name__)
        raise
    finally:
        _current.reset(token)
    for one in found:
        store.save_evidence(step_id, one)
    seconds = time.monotonic() - started
    store.save_step(step_id, "passed", seconds)
    display.step_passed(step_id, what.title, found, seconds)
