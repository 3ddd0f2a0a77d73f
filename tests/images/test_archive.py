"""An archive carries images to another engine; what was there before stays its owner's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from course_lib import ledger, shell
from course_lib.errors import CourseError
from course_lib.images import archive, bases, pins
from tests.images.test_registry import foreign, two

__all__ = ["foreign", "two"]
pytestmark = pytest.mark.docker


@pytest.fixture
def written(two: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(archive, "references", lambda: two)
    assert archive.save(tmp_path / "images.tar") > 1000
    return tmp_path / "images.tar"


def kept() -> set[str]:
    return {row.name for row in ledger.rows(lifetime="kept")}


def test_only_what_is_new_here_becomes_the_courses(written: Path, two: list[str]) -> None:
    gone = two[1]
    shell.run(["docker", "image", "rm", gone], show=False)
    assert set(archive.load(written)) == set(two) and all(map(bases.present, two))  # the engine orders them by digest
    assert kept() & set(two) == {gone}, "the other was here before: cleanup must not take it"


def test_an_archive_is_not_written_over(written: Path) -> None:
    with pytest.raises(CourseError, match="already there"):
        archive.save(written)


@pytest.mark.parametrize("damage", ["cut", "text", "nowhere"])
def test_a_broken_archive_is_told_in_a_sentence(written: Path, two: list[str], damage: str) -> None:
    if damage == "cut":
        written.write_bytes(written.read_bytes()[:1500])
    elif damage == "text":
        written.write_text("not an archive")
    else:
        written.unlink()
    with pytest.raises(CourseError, match="no archive"):
        archive.load(written)
    assert not kept() & set(two)


def test_another_platform_is_refused_before_anything_is_loaded(foreign: str, tmp_path: Path) -> None:
    shell.run(["docker", "save", "--output", str(tmp_path / "foreign.tar"), foreign], show=False)
    shell.run(["docker", "image", "rm", foreign], show=False)
    with pytest.raises(CourseError, match="holds images for linux/"):
        archive.load(tmp_path / "foreign.tar")
    assert not bases.present(foreign) and foreign not in kept()


@pytest.fixture
def pulled(two: list[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[pins.Pin]:
    """A pin with a digest whose image is known by its id, as after a pull by digest there is no tag."""
    digest = shell.run(["docker", "image", "inspect", "--format={{.Id}}", two[0]], show=False).output
    pin = replace(pins.load()["python-slim"], name="course-test", digest=digest)
    monkeypatch.setattr(pins.Pin, "pinned", property(lambda self: self.digest))
    monkeypatch.setattr(pins, "load", lambda: {"course-test": pin})
    yield pin
    shell.run(["docker", "image", "rm", "--force", pin.carried], show=False, check=False)


def test_an_image_with_a_digest_only_is_found_again_after_it_was_carried(
    pulled: pins.Pin, two: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "references", lambda: [pulled.pinned])
    archive.save(tmp_path / "images.tar")
    assert not bases.present(pulled.carried), "the name was lent for the saving only"
    shell.run(["docker", "image", "rm", "--force", two[0]], show=False)
    monkeypatch.undo()
    assert archive.load(tmp_path / "images.tar") == [pulled.carried] and bases.present(pulled.carried)
