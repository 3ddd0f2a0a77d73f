"""`course`: what a person types. Parses, calls, prints; the work is done in the rooms."""

from __future__ import annotations

import sys

from rich.markup import escape

from course_lib.cli import bench, cluster, images
from course_lib.cli.commands import app
from course_lib.cli.screen import notes
from course_lib.errors import CourseError

app.add_typer(images.app, name="images")
app.add_typer(cluster.app, name="cluster")
app.add_typer(bench.app, name="bench")


def main() -> None:
    """Runs the command; an error a person caused ends in a sentence, not in a traceback."""
    try:
        app()
    except CourseError as error:
        notes.print(f"[red]{escape(str(error))}[/red]", highlight=False)
        sys.exit(1)
