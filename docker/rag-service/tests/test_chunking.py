"""Passages: pieces of their document, no longer than asked, under the right headings, with nothing lost."""

from itertools import pairwise
from pathlib import Path

import pytest
from conftest import CHECKOUT
from rag_service.chunking import cut

PAGES = [*sorted(CHECKOUT.glob("*.md")), *sorted((CHECKOUT / "docs" / "glossary").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
@pytest.mark.parametrize(("characters", "overlap"), [(100, 0), (300, 0), (300, 100), (2000, 0)])
def test_passages_of_the_course_pages(page: Path, characters: int, overlap: int) -> None:
    text = page.read_text(encoding="utf-8")
    chunks = cut(page.name, text, characters, overlap)
    for chunk in chunks:
        assert text[chunk.start : chunk.end] == chunk.text
        assert 0 < len(chunk.text) <= characters
        assert chunk.source == page.name
    starts = [chunk.start for chunk in chunks]
    assert starts == sorted(starts)
    covered = {at for chunk in chunks for at in range(chunk.start, chunk.end)}
    left = "".join(character for at, character in enumerate(text) if at not in covered)
    assert [line for line in left.splitlines() if line.strip() and not line.startswith("#")] == []


def test_offsets_count_characters_and_not_bytes() -> None:
    text = "# Übergröße 🐳\n\nÄpfel und Öl. 日本語の文。\n\n## Zwei\n\nß"
    first, second = cut("a", text, 100, 0)
    assert (first.heading, first.text) == ("Übergröße 🐳", "Äpfel und Öl. 日本語の文。")
    assert (second.heading, text[second.start : second.end]) == ("Übergröße 🐳 > Zwei", "ß")


def test_headings() -> None:
    text = "\n".join(
        (
            "before",
            "# One #",
            "a",
            "### Three",
            "b",
            "## Two",
            "c",
            "```sh",
            "# no heading",
            "~~~",
            "# nor this",
            "```",
            "d",
            "#hash",
            "# ",
            "e",
            "    # code",
        )
    )
    found = [(chunk.heading, " ".join(chunk.text.split())) for chunk in cut("a", text, 500, 0)]
    assert found == [
        ("", "before"),
        ("One", "a"),
        ("One > Three", "b"),
        ("One > Two", "c ```sh # no heading ~~~ # nor this ``` d #hash"),
        ("", "e # code"),
    ]


def test_a_fence_that_is_never_closed_ends_with_the_document() -> None:
    assert [chunk.heading for chunk in cut("a", "# One\n```\n# Two\nx\n", 500, 0)] == ["One"]


def test_overlap_is_shared() -> None:
    sentences = " ".join(f"Sentence number {number} stands here." for number in range(20))
    plain, shared = (cut("a", sentences, 200, overlap) for overlap in (0, 80))
    assert all(left.end <= right.start for left, right in pairwise(plain))
    assert any(left.end > right.start for left, right in pairwise(shared))


def test_windows_line_ends_stay_as_they_are() -> None:
    text = "# One\r\n\r\nfirst\r\n\r\n# Two\r\n\r\nsecond\r\n"
    chunks = cut("a", text, 500, 0)
    assert [(chunk.heading, chunk.text.strip()) for chunk in chunks] == [("One", "first"), ("Two", "second")]
    assert all(text[chunk.start : chunk.end] == chunk.text for chunk in chunks)
