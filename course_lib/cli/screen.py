"""What every command prints with."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from course_lib import shell

console = Console()
notes = Console(stderr=True)


def show_commands() -> None:
    """Commands that the course runs are shown as they could be typed."""
    shell.show_commands_with(lambda line: notes.print(f"[dim]$ {escape(line)}[/dim]", highlight=False, soft_wrap=True))


def note(line: str) -> None:
    """A line on how far a long command is."""
    notes.print(f"[dim]{escape(line)}[/dim]", highlight=False, soft_wrap=True)


def print_table(heads: Sequence[str], lines: Sequence[Sequence[str]], title: str = "") -> None:
    """Rows of text under their heads."""
    table = Table(*heads, title=title or None, title_justify="left")
    for line in lines:
        table.add_row(*line)
    console.print(table)
