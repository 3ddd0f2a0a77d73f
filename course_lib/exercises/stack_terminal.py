"""The exercise of lab 4.4.2 that is done in a terminal: scale a running stack, and back its database up, by hand."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from course_lib import images
from course_lib.errors import CourseError
from course_lib.lab import display
from course_lib.lab.exercise import NotAttempted, NotYet
from course_lib.settings import CHECKOUT, as_typed
from course_lib.stacks import Stack, course_stack

REPLICAS = 2


@dataclass(frozen=True)
class TerminalTask:
    """What the commands need, and what the check looks for."""

    env_file: str
    backup: str
    """File name in the volume `backups`."""
    folder: Path
    """Where commands are typed: the checkout."""


@cache
def _backup_name() -> str:
    """Another name each session: a file of an earlier one is no proof."""
    return f"by-hand-{secrets.token_hex(2)}.jsonl.gz"


def stack() -> Stack:
    """The lab's stack: the one that runs, or a new one with a document in it."""
    found = course_stack(images.stack_variables())
    if not any(one.service == "rag" and one.well for one in found.states()):
        found.up()
    if not found.rag.documents():
        found.rag.put_files([CHECKOUT / "docs" / "glossary" / "volumes.md"])
    return found


def show_task() -> TerminalTask:
    """Shows what to do with the running stack."""
    found = stack().project
    task = TerminalTask(str(as_typed(found.env_file)), _backup_name(), CHECKOUT)
    display.table(
        [
            {"what": "how to speak to this stack", "exactly": f"docker compose --env-file {task.env_file} …"},
            {"what": "look at it first", "exactly": "ps, then config --services"},
            {"what": "replicas of inference", "exactly": f"{REPLICAS}, without touching any other service"},
            {"what": "a backup of the documents", "exactly": f"/backups/{task.backup}, in the volume `backups`"},
            {"what": "what writes it", "exactly": "the service `backup`, with the command: backup /backups/FILE"},
        ],
        caption="In a terminal, in the checkout's folder",
    )
    return task


def require_done() -> dict[str, object]:
    """Reads replicas and backup from the running stack.

    Raises:
        NotAttempted: neither is there.
        NotYet: one of them is missing.
    """
    found = course_stack(images.stack_variables())
    replicas = [one for one in found.states() if one.service == "inference" and one.status == "running"]
    if not replicas:
        raise NotYet(
            "the stack does not run", expected="the stack that this notebook started", look="the cell with stack.up()"
        )
    passages = _passages_in_backup(found)
    if passages == 0 and len(replicas) != REPLICAS:
        raise NotAttempted
    if len(replicas) != REPLICAS:
        raise NotYet(
            f"{len(replicas)} replicas of inference run",
            expected=str(REPLICAS),
            look="`docker compose up --help`: the options --scale, --detach and --no-recreate",
        )
    stored = sum(found.rag.documents().values())
    if passages != stored:
        raise NotYet(
            f"no readable backup {_backup_name()} with {stored} passages is in the volume",
            expected=f"/backups/{_backup_name()}, written by the service `backup`",
            look="`docker compose run --help`: a service, then what it should do instead of its command",
        )
    return {"replicas": len(replicas), "passages in the backup": passages}


def _passages_in_backup(found: Stack) -> int:
    """How many passages a backup holds, read by the program that would restore it; 0 where it can't."""
    read = f"from pathlib import Path; from rag_service.backup import read; print(len(list(read(Path('/backups/{_backup_name()}'))[1])))"
    try:
        said = found.project.run(
            "run", "--rm", "--no-deps", "--entrypoint", "python3", "backup", "-c", read, show=False, timeout=60
        )
    except CourseError:
        return 0
    return int(said.output) if said.output.isdigit() else 0
