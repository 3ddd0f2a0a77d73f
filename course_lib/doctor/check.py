"""A check, and how all of them are run: side by side, each with a time limit that turns a hang into a finding."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as TooLate
from dataclasses import dataclass, replace

from course_lib.doctor.finding import Finding, error, warning
from course_lib.doctor.machine import Machine
from course_lib.errors import CourseError

Examine = Callable[[Machine], Iterable[Finding]]


@dataclass(frozen=True)
class Check:
    """One thing to look at."""

    name: str
    examine: Examine
    needs_engine: bool = False
    """Left out where no engine answers: the engine's own finding has said all there is to say."""
    labs: tuple[str, ...] = ()
    """The labs it concerns; empty means all."""
    seconds: float = 5

    def concerns(self, lab: str | None) -> bool:
        return lab is None or not self.labs or lab in self.labs


def run(checks: Sequence[Check], machine: Machine) -> list[Finding]:
    """Runs checks side by side; their findings come in the order of the checks."""
    started = [(check, _start(check, machine)) for check in checks]
    return [replace(one, check=check.name) for check, future in started for one in _findings(check, future)]


def _start(check: Check, machine: Machine) -> Future[list[Finding]]:
    """Runs one check in a daemon thread: one that hangs must not keep the program from ending."""
    future: Future[list[Finding]] = Future()

    def work() -> None:
        try:
            future.set_result(list(check.examine(machine)))
        except BaseException as raised:  # noqa: BLE001  # it is raised again where the result is asked for
            future.set_exception(raised)

    threading.Thread(target=work, name=check.name, daemon=True).start()
    return future


def _findings(check: Check, future: Future[list[Finding]]) -> list[Finding]:
    """What a check found, or why it could not look. A bug in a check keeps its traceback."""
    try:
        return future.result(timeout=check.seconds)
    except TooLate:
        return [
            warning(
                f"no answer within {check.seconds:.0f} s",
                "Something this machine was asked hangs (a network drive, a proxy, the engine): run `course doctor` again, and look at `dmesg` if it stays so.",
            )
        ]
    except ModuleNotFoundError as missing:
        return [error(f"the Python package {missing.name} is not installed", "Run `./bootstrap.sh`.")]
    except CourseError as failed:
        return [warning(f"could not look: {failed.what}", failed.do or "Run `course doctor` again.")]
    except OSError as failed:
        return [
            warning(f"could not look: {failed}", "Give your user the right to read it, and run `course doctor` again.")
        ]
