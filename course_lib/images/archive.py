"""Images in a file: what a classroom without a network, or a Mac that can't build Debian bases, loads."""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from course_lib import ledger, shell
from course_lib.errors import CourseError
from course_lib.images import bases, course_image, pins, platforms, registry


def references() -> list[str]:
    """What an archive holds: bases, registry and the course's image, all of them on this engine."""
    found = bases.ensure()
    return [
        found.runtime,
        found.builder,
        *([found.os] if bases.present(found.os) else []),
        registry.ensure_image(),
        course_image.ensure_inference_image(),
    ]


def save(archive: Path, *, also: Sequence[str] = ()) -> int:
    """Writes the course's images to a file and returns its size in bytes.

    Args:
        also: further images that are on this engine, such as a stack's.

    Raises:
        CourseError: the file exists already, or the disk is full.
    """
    if archive.exists():
        raise CourseError(f"{archive} is already there", do="Give another name, or remove it.")
    with _named(list(dict.fromkeys([*references(), *also]))) as names:
        try:
            shell.run(["docker", "image", "save", "--output", str(archive), *names], timeout=1800)
        except BaseException:
            archive.unlink(missing_ok=True)
            raise
    return archive.stat().st_size


@contextmanager
def _named(wanted: list[str]) -> Iterator[list[str]]:
    """The images' names as `docker save` can keep them: one with a digest gets a tag for as long as the block."""
    carried = {pin.pinned: pin.carried for pin in pins.load().values() if pin.digest}
    tagged: list[str] = []
    try:
        for reference in wanted:
            if name := carried.get(reference):
                ledger.write_down("image", name)
                tagged.append(name)
                shell.run(["docker", "tag", reference, name], show=False)
        yield [carried.get(reference, reference) for reference in wanted]
    finally:
        for name in tagged:
            shell.run(["docker", "image", "rm", name], show=False, check=False)
            ledger.strike("image", name)


def load(archive: Path) -> list[str]:
    """Loads an archive and returns the references that came with it (those that are new here are *kept*).

    Raises:
        CourseError: no such file, it is no image archive, or its images are of another platform.
    """
    if not archive.is_file():
        raise CourseError(
            f"there is no archive {archive}",
            do="Write one with `course images save FILE` on a machine that has the images.",
        )
    held, here = _platforms(archive), platforms.of_engine()
    if others := sorted(set(held.values()) - {here}):
        raise CourseError(
            f"{archive.name} holds images for {', '.join(others)}; this engine runs {here}",
            do=f"Write an archive with `course images save FILE` on a machine whose Docker is {here}.",
        )
    new = [reference for reference in held if not bases.present(reference)]
    for reference in new:
        ledger.write_down("image", reference, "kept")
    try:
        shell.run(
            ["docker", "image", "load", "--input", str(archive)], timeout=1800, do="Is the file whole? Copy it again."
        )
    except BaseException:
        for reference in new:
            if not bases.present(reference):
                ledger.strike("image", reference)
        raise
    return [_as_this_checkouts(reference) for reference in held]


def _as_this_checkouts(reference: str) -> str:
    """The inference image is named after the checkout that built it; here it is looked for under this one's name."""
    if not re.match(r"course-[0-9a-f]{8}/inference-server:", reference) or reference.startswith(
        f"{course_image.name()}:"
    ):
        return reference
    own = f"{course_image.name()}:{reference.rpartition(':')[2]}"
    ledger.write_down("image", own, "kept")
    shell.run(["docker", "image", "tag", reference, own], show=False)
    return own


def _platforms(archive: Path) -> dict[str, str]:
    """The archive's images and the platform of each, read before anything is loaded."""
    found: dict[str, str] = {}
    try:
        with tarfile.open(archive) as tar:
            for image in _json(tar, "manifest.json"):
                config = _json(tar, image["Config"])
                found |= dict.fromkeys(image["RepoTags"] or [], f"{config['os']}/{config['architecture']}")
    except (tarfile.TarError, KeyError, TypeError, ValueError, OSError, EOFError) as error:
        raise CourseError(
            f"{archive.name} is no archive of images", why=str(error), do="Is the file whole? Copy it again."
        ) from None
    return found


def _json(tar: tarfile.TarFile, name: str):  # type: ignore[no-untyped-def]  # whatever stands in it
    opened = tar.extractfile(name)
    if opened is None:
        raise KeyError(name)
    return json.load(opened)
