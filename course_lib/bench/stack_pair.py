"""Two stacks side by side on one machine: each answers from its own documents, and they share nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from course_lib import shell
from course_lib.stacks import Stack, running

#: Each stack is told another name; whoever answers with the other's has looked into the other's database.
_QUESTION = "What is the name of the ship?"


def figures(first: Stack, second: Stack, say: Callable[[str], None]) -> dict[str, Any]:
    """Starts the second beside the first, which runs, and takes it away again.

    Returns:
        How many of the two answered from their own documents, and how many containers, networks, volumes and ports they share.
    """
    say("side by side: a second stack")
    with running(second):
        names = {"Aurora": first, "Borealis": second}
        for name, stack in names.items():
            stack.rag.put("ship.md", f"# The ship\n\nThe name of the ship is {name}, and it sails at dawn.\n")
        answering = 0
        for name, stack in names.items():
            text = stack.rag.answer(_QUESTION).text
            answering += name in text
            say(f"side by side: {stack.project.short} says: {text}")
        first.rag.delete("ship.md")
        ours, theirs = objects(first), objects(second)
    return {
        "answering": answering,
        "shared": len(ours & theirs),
        "shared_names": sorted(ours & theirs),
        "objects": [len(ours), len(theirs)],
    }


def objects(stack: Stack) -> set[str]:
    """What the engine has of a stack: containers, networks and volumes by name, and published ports."""
    mine = f"--filter=label=com.docker.compose.project={stack.project.name}"
    found = set()
    for kind, command in {
        "container": ("ps", "--all", "--format={{.Names}}"),
        "network": ("network", "ls", "--format={{.Name}}"),
        "volume": ("volume", "ls", "--format={{.Name}}"),
        "port": ("ps", "--format={{.Ports}}"),
    }.items():
        said = shell.run(["docker", *command, mine], show=False).output.replace(",", "\n").splitlines()
        # "127.0.0.1:32768->8443/tcp" is published; "8443/tcp" is only open inside
        found |= {f"{kind} {line.strip().partition('->')[0]}" for line in said if kind != "port" or "->" in line}
    return found
