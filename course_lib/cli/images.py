"""`course images`: base images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from course_lib.cli.screen import console, show_commands

app = typer.Typer(
    no_args_is_help=True, help="Base images: pin them by digest, carry them to a machine without a network."
)


@app.command("pin")
def pin() -> None:
    """Asks the registries for each image's digest and rewrites docker/base/images.toml.

    Example: `course images pin`
    """
    from course_lib.images import pins

    said = pins.pin_all()
    for name, digest in said.items():
        console.print(f"{name}: {escape(digest)}", highlight=False)
    raise typer.Exit(0 if all(digest.startswith("sha256:") for digest in said.values()) else 1)


@app.command("save")
def save(archive: Annotated[Path, typer.Argument(help="File to write.")]) -> None:
    """Writes the base images and the course's image to one archive, for a machine without a network.

    Example: `course images save images.tar`
    """
    from course_lib import images, stacks
    from course_lib.images import archive as archives

    show_commands()
    also = sorted(set(stacks.built_variables(images.stack_variables()).values()))
    console.print(f"{archives.save(archive, also=also) / 1e6:,.0f} MB", highlight=False)


@app.command("load")
def load(archive: Annotated[Path, typer.Argument(help="File that `course images save` wrote.")]) -> None:
    """Loads an archive of images that `course images save` wrote.

    Example: `course images load images.tar`
    """
    from course_lib.images import archive as archives

    show_commands()
    for reference in archives.load(archive):
        console.print(reference, highlight=False)
