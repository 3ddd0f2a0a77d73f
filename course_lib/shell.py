"""Where every subprocess of the course goes: shown to whoever looks on, bounded in time, and explained when it fails."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from course_lib.errors import CourseError

Announce = Callable[[str], None]

_announce: Announce | None = None

#: Children carry this variable, so that the reaper can find those that outlived the session that started them.
SESSION_VARIABLE = "COURSE_SESSION"


_session = ""


def mark_children_with(session: str) -> None:
    """Sets the session that the children of `run` and `pipe` belong to (what a learner starts otherwise is theirs)."""
    global _session
    _session = session


def show_commands_with(announce: Announce | None) -> None:
    """Sets what is called with each command line before it runs; None shows nothing."""
    global _announce
    _announce = announce


def announce(command: str) -> None:
    """Shows a command line to whoever looks on."""
    if _announce is not None:
        _announce(command)


@dataclass(frozen=True)
class Completed:
    """What a finished command said."""

    argv: tuple[str, ...]
    stdout: str
    stderr: str

    @property
    def output(self) -> str:
        return self.stdout.strip()


class CommandError(CourseError):
    """A command ended with a status other than 0, or did not end in time."""

    def __init__(self, argv: Sequence[str], status: int | None, stdout: str, stderr: str, *, do: str = "") -> None:
        said = "\n".join((stderr.strip() or stdout.strip()).splitlines()[-12:])
        how = "did not end in time" if status is None else f"ended with status {status}"
        super().__init__(f"`{readable(argv)}` {how}", why=said, do=do)
        self.argv, self.status, self.stdout, self.stderr = tuple(argv), status, stdout, stderr


def readable(argv: Sequence[str]) -> str:
    """The command as one would type it, the home folder shortened."""
    home = str(Path.home())
    return " ".join(
        f"~{shlex.quote(a[len(home) :])}" if home != "/" and (a == home or a.startswith(home + "/")) else shlex.quote(a)
        for a in argv
    )


def run(
    argv: Sequence[str],
    *,
    show: bool = True,
    check: bool = True,
    timeout: float = 600,
    input: str | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    on_line: Callable[[str], None] | None = None,
    do: str = "",
) -> Completed:
    """Runs a command to its end.

    Args:
        argv: program and arguments; never a shell line.
        show: announce the command (the learner sees exactly what ran).
        check: raise when the status is not 0.
        timeout: seconds, after which the command is killed.
        env: variables added to this process's own.
        on_line: called with each line of standard error as it comes (BuildKit's progress, say).
        do: what a person can do when it fails.

    Raises:
        CommandError: the command failed or ran out of time.
        CourseError: the program is not installed.
    """
    _require_program(argv[0], do)
    if show:
        announce(readable(argv))
    process = subprocess.Popen(
        argv,
        stdin=subprocess.PIPE if input is not None else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        env={**_environment(), **(env or {})},
        cwd=cwd,
        start_new_session=True,  # so that its own children (buildx of docker) can be ended with it
    )
    try:
        if on_line is None:
            stdout, stderr = process.communicate(input, timeout=timeout)
        else:
            stdout, stderr = _stream(process, on_line, timeout)
    except subprocess.TimeoutExpired as late:
        _kill(process)
        raise CommandError(argv, None, _text(late.stdout), _text(late.stderr), do=do) from None
    except BaseException:  # Ctrl-C too: no child outlives the call that started it
        _kill(process)
        raise
    if check and process.returncode != 0:
        raise CommandError(argv, process.returncode, stdout, stderr, do=do)
    return Completed(tuple(argv), stdout, stderr)


def pipe(source: Sequence[str], sink: Sequence[str], *, timeout: float = 1800, do: str = "") -> Completed:
    """Runs `source | sink` to the end and returns what the sink said.

    Raises:
        CommandError: either of them failed.
    """
    announce(f"{readable(source)} | {readable(sink)}")
    for program in (source[0], sink[0]):
        _require_program(program, do)
    with tempfile.TemporaryFile("w+", errors="replace") as said:  # a file: a full pipe that nobody reads would stop it
        first = subprocess.Popen(
            source, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=said, env=_environment()
        )
        try:
            done = subprocess.run(
                sink, stdin=first.stdout, capture_output=True, text=True, env=_environment(), timeout=timeout
            )
        except BaseException:
            first.kill()
            raise
        finally:
            assert first.stdout is not None
            first.stdout.close()
            first.wait()
        said.seek(0)
        words = said.read()
    if done.returncode != 0:
        raise CommandError(sink, done.returncode, done.stdout, done.stderr + words, do=do)
    if first.returncode != 0:
        raise CommandError(source, first.returncode, "", words, do=do)
    return Completed(tuple(sink), done.stdout, done.stderr)


def succeeds(argv: Sequence[str], *, timeout: float = 20) -> bool:
    """Whether a command is there and ends with status 0; shows nothing."""
    try:
        run(argv, show=False, timeout=timeout)
    except CourseError:
        return False
    return True


def _require_program(name: str, do: str) -> None:
    if shutil.which(name) is None:
        raise CourseError(
            f"the program `{name}` is not on this machine", do=do or "Run `make doctor`, which says how to get it."
        )


def _environment() -> dict[str, str]:
    return dict(os.environ) | ({SESSION_VARIABLE: _session} if _session else {})


def _kill(process: subprocess.Popen[str]) -> None:
    """Ends a child and whatever it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _text(said: str | bytes | None) -> str:
    return said.decode(errors="replace") if isinstance(said, bytes) else said or ""


def _stream(process: subprocess.Popen[str], on_line: Callable[[str], None], timeout: float) -> tuple[str, str]:
    """Hands standard error on line by line while standard output is collected beside it."""
    assert process.stdout is not None and process.stderr is not None
    collected: list[str] = []
    reader = threading.Thread(target=lambda: collected.append(process.stdout.read()), daemon=True)  # type: ignore[union-attr]
    reader.start()
    killed = threading.Event()

    def kill() -> None:
        killed.set()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)

    alarm = threading.Timer(timeout, kill)
    alarm.start()
    kept: deque[str] = deque(maxlen=400)
    try:
        for line in process.stderr:
            kept.append(line)
            on_line(line.rstrip("\n"))
        process.wait()
        reader.join()
    finally:
        alarm.cancel()
    stderr = "".join(kept)
    if killed.is_set():
        raise subprocess.TimeoutExpired(process.args, timeout, "".join(collected).encode(), stderr.encode())
    return "".join(collected), stderr
