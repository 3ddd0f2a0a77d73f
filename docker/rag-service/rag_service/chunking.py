"""Documents as passages: a section at most, cut by semantic-text-splitter where it is long; each is a piece of the document.

A heading is kept beside its passages and not in them, so that a quote is a sentence and not a title.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from semantic_text_splitter import MarkdownSplitter

# https://spec.commonmark.org/0.31.2/#atx-headings and #fenced-code-blocks: a # inside a fence is no heading.
HEADING = re.compile(r" {0,3}(#{1,6})(?:[ \t]+(.*?))??(?:[ \t]+#+)?[ \t]*")
FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
BETWEEN = " > "


@dataclass(frozen=True, slots=True)
class Chunk:
    """A passage: ``text`` is ``document[start:end]``, ``heading`` the titles above it from the first to the nearest."""

    source: str
    heading: str
    text: str
    start: int
    end: int

    @property
    def with_heading(self) -> str:
        """What is embedded: the heading often has the words that a question has."""
        return f"{self.heading}\n{self.text}" if self.heading else self.text


def cut(source: str, document: str, characters: int, overlap: int) -> list[Chunk]:
    """The passages of a document in their order, none longer than ``characters``; offsets count characters."""
    splitter = MarkdownSplitter(characters, overlap)
    return [
        Chunk(source, heading, text, start + offset, start + offset + len(text))
        for heading, start, end in _sections(document)
        for offset, text in splitter.chunk_indices(document[start:end])
        if text.strip()
    ]


def _sections(document: str) -> Iterator[tuple[str, int, int]]:
    """(heading, start, end) of what stands between two headings."""
    titles: list[tuple[int, str]] = []
    fence = ""
    start = at = 0
    for line in document.splitlines(keepends=True):
        bare = line.rstrip("\r\n")
        if mark := FENCE.match(bare):
            if not fence:
                fence = mark[1]
            elif bare.strip().startswith(fence) and not bare.strip(" " + fence[0]):
                fence = ""
        elif not fence and (found := HEADING.fullmatch(bare)):
            yield BETWEEN.join(title for _, title in titles), start, at
            level = len(found[1])
            titles = [each for each in titles if each[0] < level]
            if found[2]:
                titles.append((level, found[2]))
            start = at + len(line)
        at += len(line)
    yield BETWEEN.join(title for _, title in titles), start, at
