"""Where bases come from: decided once, remembered shortly when the answer was no, and never packages on a Mac."""

from __future__ import annotations

import os
import re
import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest

from course_lib import ledger, shell
from course_lib.errors import CourseError
from course_lib.images import bases, pins
from course_lib.settings import settings

DIGEST = "sha256:" + "0123456789abcdef" * 4


@pytest.fixture
def asked(fresh_state: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """An engine without images, a registry that does not answer, a Debian; the list of what the registry was asked."""
    found: list[str] = []

    def resolve(reference: str, *, timeout: float = 30) -> str:
        found.append(reference)
        raise CourseError("no registry", why="timeout")

    monkeypatch.setenv("IMAGES", "auto")
    settings.cache_clear()
    monkeypatch.setattr(bases, "present", lambda reference: False)
    monkeypatch.setattr(bases, "_built_suite", lambda: "")
    monkeypatch.setattr(bases, "_has_packages", lambda: True)
    monkeypatch.setattr(pins, "resolve", resolve)
    return found


def test_what_is_set_is_not_asked(asked: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for wanted in ("registry", "debian"):
        monkeypatch.setenv("IMAGES", wanted)
        settings.cache_clear()
        assert bases.source() == (wanted, f"IMAGES={wanted}")
    assert asked == []


def test_no_is_remembered_for_minutes(asked: list[str]) -> None:
    assert bases.source()[0] == bases.source()[0] == "debian" and len(asked) == 1
    remembered = settings().state_dir / "image-source.json"
    then = time.time() - 301
    os.utime(remembered, (then, then))
    assert bases.source()[0] == "debian" and len(asked) == 2


def test_yes_is_remembered_for_a_day(asked: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pins, "resolve", lambda reference, timeout: DIGEST)
    assert bases.source()[0] == "registry"
    monkeypatch.setattr(pins, "resolve", lambda reference, timeout: pytest.fail("asked again"))
    then = time.time() - 23 * 3600
    os.utime(settings().state_dir / "image-source.json", (then, then))
    assert bases.source()[0] == "registry"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"source": "moon", "why": "x"}', '{"source": "debian"}', "\x00"])
def test_a_memory_that_can_not_be_read_is_none(asked: list[str], text: str) -> None:
    (settings().state_dir / "image-source.json").write_text(text)
    assert bases.source()[0] == "debian" and len(asked) == 1


def test_without_packages_there_is_a_sentence_and_it_is_asked_again(
    asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    bases.source()  # a memory from before
    monkeypatch.setattr(bases, "_has_packages", lambda: False)
    for _ in range(2):
        with pytest.raises(CourseError, match="no image registry gave python:") as failed:
            bases.source()
        assert "course images load" in failed.value.do
    assert len(asked) == 3


def test_a_pin_is_at_hand_by_digest_and_from_an_archive_but_not_by_its_tag(
    asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pin = replace(pins.load()["python-slim"], digest=DIGEST)
    for here, found in ((pin.pinned, pin.pinned), (pin.carried, pin.carried), (pin.reference, "")):
        monkeypatch.setattr(bases, "present", lambda reference, here=here: reference == here)
        assert bases.at_hand(pin) == found


def test_a_pull_that_failed_leaves_no_row(asked: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise shell.CommandError(["docker", "pull"], 1, "", "no such host")

    monkeypatch.setattr(shell, "run", fail)
    with pytest.raises(CourseError):
        bases.pull(pins.load()["python-slim"])
    assert ledger.rows() == []


def test_pinning_rewrites_digest_and_day_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = Path(shutil.copy(pins.FILE, tmp_path))
    before = pins.load(file)

    def resolve(reference: str, *, timeout: float = 30) -> str:
        if reference == before["registry"].reference:
            raise CourseError("no registry gave a digest")
        return DIGEST

    monkeypatch.setattr(pins, "resolve", resolve)
    said = pins.pin_all(file)
    assert said.pop("registry").startswith("no registry gave a digest") and set(said.values()) == {DIGEST}
    after = pins.load(file)
    today = time.strftime("%Y-%m-%d")
    for name, pin in before.items():
        assert after[name] == (pin if name == "registry" else replace(pin, digest=DIGEST, resolved=today))
    changed = re.compile(r'^(digest|resolved) = ".*"$', re.M)
    assert changed.sub("", file.read_text()) == changed.sub("", pins.FILE.read_text())


@pytest.mark.docker
def test_finished_bases_of_this_recipe_are_found_whatever_their_suite(
    fresh_state: Path, small_image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = bases._built_suite()
    if not mine:
        pytest.skip("this machine's bases are a registry's")
    assert bases._names(mine)[1] == small_image
    _, slim, full = bases._names("elsewhere")
    try:
        for name in (slim, full):
            shell.run(["docker", "tag", small_image, name], show=False)
        assert bases._built_suite() == mine, "this machine's own come first"
        monkeypatch.setattr(bases, "_suite", lambda: "elsewhere")
        assert bases._built_suite() == "elsewhere"
        shell.run(["docker", "image", "rm", full], show=False)
        assert bases._built_suite() == mine, "half a pair is none"
    finally:
        shell.run(["docker", "image", "rm", slim, full], show=False, check=False)
