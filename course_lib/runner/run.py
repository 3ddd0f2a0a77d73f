"""One headless run, from the lock to the report."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from course_lib import ledger, reaper, waits
from course_lib.errors import CourseError
from course_lib.host import setup
from course_lib.lab import catalog, exercise, store
from course_lib.runner import execute, lock, plan, progress, report, rules
from course_lib.settings import CHECKOUT, settings

#: Seconds that records of headless runs stay: their reports are gone long before.
KEEP_RECORDS_S = 30 * 24 * 3600


def run(
    wanted: Sequence[str],
    *,
    solutions: bool = False,
    parameters: Mapping[str, int | str] | None = None,
    require_fit: Callable[[Sequence[str]], None] = lambda labs: None,
) -> report.Report:
    """Executes labs against the real engine and writes reports/latest/.

    Args:
        wanted: lab ids or notebooks; empty for the seven labs.
        solutions: run solutions/ and fail for exercises that their answers don't pass.
        parameters: of the notebooks, in place of their own.
        require_fit: called with the labs' ids once the engine is ready; raises CourseError where they are bound to fail.

    Raises:
        CourseError: the run can't begin. Once it has begun, whatever happens is in the report.
    """
    planned = plan.plan(wanted, solutions=solutions, parameters=parameters or {})
    with lock.only_run():
        begun = time.time()
        run_id = time.strftime("%Y%m%d-%H%M%S") + f"-{os.getpid()}"
        folder = CHECKOUT / "reports" / run_id
        folder.mkdir(parents=True)
        found = report.Report.begin(run_id, [p.lab for p in planned])
        try:
            _end_like_ctrl_c()
            _sweep()
            store.forget(begun - KEEP_RECORDS_S)
            setup.ready()
            require_fit([p.lab.id for p in planned])
            found.host = report.host()  # only now is there an engine to be named
            with progress.RunProgress([p.lab.id for p in planned]) as shown:
                for one in planned:
                    _run_one(one, found, folder, run_id, shown, begun, solutions, parameters or {})
        except CourseError as error:
            found.problem = str(error)
        except KeyboardInterrupt:
            found.problem = "The run was interrupted."
        finally:
            found.left_behind = left_behind()
            found.finish()
            report.write(found, folder)
        return found


def _run_one(
    one: plan.Planned,
    found: report.Report,
    folder: Path,
    run_id: str,
    shown: progress.RunProgress,
    begun: float,
    solutions: bool,
    parameters: Mapping[str, int | str],
) -> None:
    name = f"{one.kind} lab {one.lab.id}"
    environment = {"COURSE_RUN_ID": run_id, "COURSE_STATE_DIR": str(settings().state_dir)}
    if one.kind != "copy":  # what a learner has in work/ neither helps nor harms a run of the originals
        environment["COURSE_WORK_DIR"] = str(folder / "work")
    result = found.lab(one.lab.id)
    result.begin(one.kind)
    shown.begin(name)
    executed: execute.Executed | None = None
    try:
        executed = execute.execute(
            one.notebook,
            _output(folder, one.lab),
            environment=environment,
            parameters={name: value for name, value in parameters.items() if name in one.parameters},
            on_cell=lambda number, total, label: shown.cell(number, total, label, name),
        )
    finally:
        shown.end()
        result.steps_from(store.steps(run_id), lambda step: store.evidence(run_id, step))
        result.exercises_from(store.exercises(run_id), list(exercise.of_lab(one.lab.id).values()))
        result.figures = store.figures(run_id, one.lab.id)
    found.first_cell(begun, executed.first_cell_at)
    problems = ([executed.error] if executed.error else []) + rules.broken(executed.notebook, one.lab)
    if solutions:
        problems += [
            f"exercise {e['id']} is {e['status']}: {e['said']}"
            for e in result.exercises
            if e["status"] not in ("passed", "skipped")
        ]
    result.end(executed.seconds, problems, executed.overhead)
    if not problems:
        progress.remember(name, executed.seconds)
    shown.say(f"{name}: {result.status} in {executed.seconds:.0f} s")


def _output(folder: Path, lab: catalog.Lab) -> Path:
    """Where in a report's folder the executed notebook goes."""
    path = folder / lab.notebook
    path.parent.mkdir(exist_ok=True)
    return path


def dead_sessions() -> set[ledger.Session]:
    """Sessions of this checkout that have ended and still have *run* rows."""
    return {row.session for row in ledger.rows(lifetime="run", checkout=CHECKOUT) if not row.session.alive}


def _end_like_ctrl_c() -> None:
    """A closed terminal or a job that is stopped ends a run as Ctrl-C does: with cleanup and a report.

    Ctrl-C itself is set, too: a shell starts its background jobs with it ignored. `nohup` stays what it is.
    """

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, interrupt)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, interrupt)


def _sweep() -> None:
    """Removes what ended sessions of this checkout left, for the case that even their reaper was killed."""
    for session in dead_sessions():
        reaper.clean_up_after(session)


def left_behind() -> list[ledger.Row]:
    """Waits for the reapers of ended sessions, then does what they did not; returns what is there still."""

    def all_gone() -> None:
        if left := _left():
            raise waits.NotYet(f"{len(left)} things of ended sessions")

    try:
        waits.until(all_gone, what="the reaper", timeout=20)
        return []
    except waits.WaitTimeout:
        _sweep()
    return _left()


def _left() -> list[ledger.Row]:
    """What ended sessions of this checkout wrote down, and what carries their labels."""
    known = {
        (row.kind, row.name): row for row in ledger.rows(lifetime="run", checkout=CHECKOUT) if not row.session.alive
    }
    for kind, name in reaper.labelled(lifetime="run", checkout=settings().checkout_id):  # what no row knows any more
        if (kind, name) not in known and not reaper.of_living_session(kind, name):
            known[kind, name] = ledger.Row(kind, name, "run", str(CHECKOUT), ledger.Session(0, ""))
    return list(known.values())
