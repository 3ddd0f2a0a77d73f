"""Making the host ready for the labs: an engine that answers."""

from __future__ import annotations

import sys

from course_lib.errors import CourseError
from course_lib.host import daemon, engine, packages
from course_lib.host.engine import EngineState


def ready() -> engine.Engine:
    """An engine that answers: installed where none is, started where it is stopped. Does nothing when one answers.

    Raises:
        CourseError: it can't be had; says which of the reasons it is and what to do.
    """
    found = engine.probe()
    if found.state is EngineState.NOT_INSTALLED:
        packages.install_engine()
        found = engine.probe()
    if found.state is EngineState.STOPPED:
        print("course: starting the Docker engine", file=sys.stderr)
        daemon.start()
        found = engine.probe()
    if not found.usable:
        raise CourseError(f"Docker can't be used: {found.state.value}", why=found.seen, do=engine.remedy(found.state))
    return found


if __name__ == "__main__":
    try:
        ready()
    except CourseError as error:
        sys.exit(f"course: {error}")
