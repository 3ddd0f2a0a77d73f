"""Images in a file: what a classroom without a network, or a Mac that can't build Debian bases, loads."""

from __future__ import annotations

from pathlib import Path

from course_lib import ledger, shell
from course_lib.errors import CourseError
from course_lib.images import bases, course_image, registry


def save(archive: Path) -> int:
    """Writes bases, registry and the course's image to a file and returns its size in bytes.

    Raises:
        CourseError: the file exists already, or the disk is full.
    """
    if archive.exists():
        raise CourseError(f"{archive} is already there", do="Give another name, or remove it.")
    found = bases.ensure()
    references = [
        found.runtime,
        found.builder,
        *([found.os] if found.os else []),
        registry.ensure_image(),
        course_image.ensure_inference_image(),
    ]
    try:
        shell.run(["docker", "image", "save", "--output", str(archive), *references], timeout=1800)
    except BaseException:
        archive.unlink(missing_ok=True)
        raise
    return archive.stat().st_size


def load(archive: Path) -> list[str]:
    """Loads an archive and returns the references that came with it (they are *kept*).

    Raises:
        CourseError: no such file, or it is no image archive.
    """
    if not archive.is_file():
        raise CourseError(
            f"there is no archive {archive}",
            do="Write one with `course images save FILE` on a machine that has the images.",
        )
    said = shell.run(
        ["docker", "image", "load", "--input", str(archive)], timeout=1800, do="Is the file whole? Copy it again."
    )
    found = [
        line.partition("Loaded image: ")[2] for line in said.stdout.splitlines() if line.startswith("Loaded image: ")
    ]
    for reference in found:
        ledger.write_down("image", reference, "kept")
    return found
