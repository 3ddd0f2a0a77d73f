"""A tag that moves: two images pushed to a registry under one name, and a reference that has to keep its meaning."""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Callable
from pathlib import Path

from course_lib import ledger, shell
from course_lib.errors import CourseError
from course_lib.images import buildkit, registry
from course_lib.lab.exercise import NotYet

Pin = Callable[[str, str], str]


def _tiny_image(name: str, text: str) -> str:
    """An image of one file: pushing and pulling it takes no time."""
    with tempfile.TemporaryDirectory() as held:
        Path(held, "Dockerfile").write_text('FROM scratch\nCOPY release.txt /\nCMD ["/release.txt"]\n')
        Path(held, "release.txt").write_text(text + "\n")
        return buildkit.build(Path(held), tag=name).reference


def require_keeps_meaning(pin: Pin) -> dict[str, object]:
    """Pushes an image, asks for a reference, moves the tag, pulls the reference again; returns what it saw.

    Raises:
        NotYet: the reference means another image now, or none.
    """
    unique = secrets.token_hex(4)
    first, second = (_tiny_image(f"course/release-{n}:{unique}", f"{n} release {unique}") for n in ("first", "second"))
    name = f"router-{unique}:stable"
    made = [first, second]
    try:
        with registry.running("exercise-registry") as shop:
            tag = f"{shop.address}/{name}"
            made.append(tag)
            wanted = buildkit.image_id(first)
            made += [wanted, buildkit.image_id(second)]  # by id, so that references by digest go, too
            shop.push(first, name)
            # Gone from here, so that only asking the registry tells what the name means.
            shell.run(["docker", "image", "rm", "--force", tag], show=False)
            reference = _ask(pin, shop.address, name)
            shop.push(second, name)
            # Nothing local may answer in the registry's place.
            shell.run(["docker", "image", "rm", "--force", tag, wanted], show=False, check=False)
            ledger.write_down("image", reference)
            made.append(reference)
            try:
                shell.run(["docker", "pull", "--quiet", reference], timeout=60)
                found = buildkit.image_id(reference)
            except CourseError as error:
                raise NotYet(
                    f"after the tag moved, {reference} can't be pulled: {error.why or error.what}",
                    expected="the first image, by the digest of its manifest in the registry",
                    look="whose digest it is: an image, its layers and its manifest have one each",
                ) from None
            if found != wanted:
                raise NotYet(
                    f"after the tag moved, {reference} means another image",
                    expected=f"{wanted[:19]}…, the image that was pushed first",
                    look="what in the reference can change: a tag is a label that anybody may stick elsewhere",
                )
            if "@sha256:" not in reference:
                raise NotYet(
                    f"{reference} means the first image today, and another one as soon as somebody pushes to that tag",
                    expected="a reference that nobody can move: name@sha256:…",
                    look="what names an image by its content, and not by agreement",
                )
            return {"before and after the tag moved": reference, "the tag means now": shop.digest(name)[:19] + "…"}
    finally:
        shell.run(["docker", "image", "rm", "--force", *made], show=False, check=False)
        for image in made:
            ledger.strike("image", image)


def _ask(pin: Pin, address: str, name: str) -> str:
    """The learner's function, called; its mistakes are answers too."""
    if not callable(pin):
        raise NotYet(f"pin is {pin!r}", expected="a function of a registry's address and a name", look="the cell above")
    try:
        reference = pin(address, name)
    except CourseError:
        raise
    except Exception as error:
        raise NotYet(
            f"pin({address!r}, {name!r}) raised {type(error).__name__}: {error}",
            expected="a reference",
            look="the function",
        ) from error
    if not isinstance(reference, str) or not reference.startswith(address):
        raise NotYet(
            f"pin({address!r}, {name!r}) returned {reference!r}",
            expected="a string that starts with the registry's address",
            look="what stands before the image's name in `docker pull`",
        )
    return reference
