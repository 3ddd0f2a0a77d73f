"""Subprocesses: shown, bounded, explained."""

from __future__ import annotations

import sys
import time

import psutil
import pytest

from course_lib import shell
from course_lib.errors import CourseError


def test_a_command_is_shown_as_one_would_type_it() -> None:
    shown: list[str] = []
    shell.show_commands_with(shown.append)
    try:
        shell.run([sys.executable, "-c", "print('two words')"])
        shell.run([sys.executable, "-c", "pass"], show=False)
    finally:
        shell.show_commands_with(None)
    assert len(shown) == 1
    assert shown[0].endswith("""-c 'print('"'"'two words'"'"')'""")


def test_a_failure_carries_command_status_and_words() -> None:
    with pytest.raises(shell.CommandError) as failed:
        shell.run(
            [sys.executable, "-c", "import sys; print('what it said', file=sys.stderr); sys.exit(3)"], do="Do this."
        )
    assert failed.value.status == 3
    assert (
        "what it said" in str(failed.value) and "status 3" in str(failed.value) and "-> Do this." in str(failed.value)
    )


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:  # another test's, and about to be gone
        return ""


@pytest.mark.parametrize("streamed", [False, True])
def test_a_command_that_hangs_is_ended(streamed: bool) -> None:
    started = time.monotonic()
    with pytest.raises(shell.CommandError, match="did not end in time"):
        shell.run(
            [sys.executable, "-c", "import time; time.sleep(60)"],
            timeout=0.5,
            on_line=(lambda line: None) if streamed else None,
        )
    assert time.monotonic() - started < 20
    assert not [command for command in map(_command, psutil.Process().children()) if "time.sleep(60)" in command]


def test_lines_are_handed_on_as_they_come() -> None:
    lines: list[str] = []
    code = "import sys\nfor i in range(3): print(i, file=sys.stderr)\nprint('out')"
    done = shell.run([sys.executable, "-c", code], on_line=lines.append)
    assert lines == ["0", "1", "2"] and done.output == "out"


def test_a_missing_program_is_named() -> None:
    with pytest.raises(CourseError, match="`no-such-program` is not on this machine"):
        shell.run(["no-such-program"])


def test_a_pipe_names_the_side_that_failed() -> None:
    assert shell.pipe([sys.executable, "-c", "print('through')"], ["cat"]).output == "through"
    with pytest.raises(shell.CommandError, match="status 4"):
        shell.pipe([sys.executable, "-c", "import sys; sys.exit(4)"], ["cat"])
    with pytest.raises(shell.CommandError, match="status 5"):
        shell.pipe(["echo", "x"], [sys.executable, "-c", "import sys; sys.exit(5)"])
