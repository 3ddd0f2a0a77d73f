"""One run a checkout: two would build, tag and remove each other's things."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager

from course_lib.errors import CourseError
from course_lib.settings import settings


@contextmanager
def only_run() -> Iterator[None]:
    """Holds the checkout's lock for the length of the block; the kernel lets go of it when the process ends, however it ends.

    Raises:
        CourseError: another run of this checkout holds it; names its process.
    """
    path = settings().state_dir / f"run-{settings().checkout_id}.lock"
    with path.open("a+") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            held.seek(0)
            raise CourseError(
                f"another run of this checkout is under way (process {held.read().strip() or 'unknown'})",
                do="Wait for it, end it with Ctrl-C, or work in a second clone: the two don't collide.",
            ) from None
        held.truncate(0)
        held.write(str(os.getpid()))
        held.flush()
        yield
