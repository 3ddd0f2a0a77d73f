"""The images that come from a registry, with their digests: docker/base/images.toml, read and rewritten."""

from __future__ import annotations

import re
import time
import tomllib
from dataclasses import dataclass
from pathlib import Path

from course_lib import shell
from course_lib.errors import CourseError
from course_lib.settings import CHECKOUT

FILE = CHECKOUT / "docker" / "base" / "images.toml"


@dataclass(frozen=True)
class Pin:
    """One image of a registry.

    `digest` is that of the index, which serves every platform; empty while nobody has resolved it.
    """

    name: str
    reference: str
    digest: str
    source: str
    resolved: str

    @property
    def pinned(self) -> str:
        """What to write after FROM: with the digest where it is known."""
        return f"{self.reference}@{self.digest}" if self.digest else self.reference

    @property
    def carried(self) -> str:
        """Its name in an archive: `docker save` keeps no name that has a digest."""
        return f"course-base/{self.name}:pinned-{self.digest[7:19]}" if self.digest else self.reference


def load(file: Path = FILE) -> dict[str, Pin]:
    """The pins by name."""
    table = tomllib.loads(file.read_text())
    return {name: Pin(name, e["reference"], e["digest"], e["source"], e["resolved"]) for name, e in table.items()}


def resolve(reference: str, *, timeout: float = 30) -> str:
    """The digest a registry answers for a tag now.

    Raises:
        CourseError: no registry answered, or it knows no such image.
    """
    try:
        asked = shell.run(
            ["docker", "buildx", "imagetools", "inspect", reference, "--format={{.Manifest.Digest}}"],
            show=False,
            timeout=timeout,
        )
    except shell.CommandError as error:
        raise CourseError(
            f"no registry gave a digest for {reference}", why=error.why, do="Check the name and the network."
        ) from None
    if not re.fullmatch(r"sha256:[0-9a-f]{64}", asked.output):
        raise CourseError(f"a registry's answer for {reference} is no digest", why=asked.output)
    return asked.output


def pin_all(file: Path = FILE) -> dict[str, str]:
    """Resolves every tag and rewrites the file; returns for each name its digest or why there is none."""
    text, said = file.read_text(), {}
    for name, pin in load(file).items():
        try:
            digest = resolve(pin.reference)
        except CourseError as error:
            said[name] = str(error)
            continue
        said[name] = digest
        section = re.compile(rf"(\[{re.escape(name)}\]\n(?:(?!\[).*\n)*)")
        body = section.search(text)
        assert body is not None
        new = re.sub(r'^digest = ".*"$', f'digest = "{digest}"', body.group(1), flags=re.M)
        new = re.sub(r'^resolved = ".*"$', f'resolved = "{time.strftime("%Y-%m-%d")}"', new, flags=re.M)
        text = text.replace(body.group(1), new)
    file.write_text(text)
    return said
