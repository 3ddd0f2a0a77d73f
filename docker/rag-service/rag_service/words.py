"""Search by words: BM25 in SQLite's full-text index, in memory. It comes with Python; bm25s would bring 60 MB of NumPy."""

import re
import sqlite3
from collections.abc import Iterable

from rag_service.chroma import Row

WORD = re.compile(r"\w+")
FIELDS = {"source", "heading", "start", "end", "written", "of"}  # of a row; others are not this service's
MOST_WORDS = 64  # of a question


class WordIndex:
    """The passages of one version of the collection, held to be searched by words and to be counted.

    Args:
        version: the collection's, when they were read.
        rows: all of them.
    """

    def __init__(self, version: str, rows: Iterable[Row]) -> None:
        self.version = version
        self.rows, self.leftovers = _current(rows)
        self.counts: dict[str, int] = {}
        for row in self.rows.values():
            self.counts[row.metadata["source"]] = row.metadata["of"]
        self._database = sqlite3.connect(":memory:", check_same_thread=False)
        self._database.execute(
            "CREATE VIRTUAL TABLE passages USING fts5(id UNINDEXED, heading, text, tokenize='porter unicode61')"
        )
        self._database.executemany(
            "INSERT INTO passages VALUES (?, ?, ?)",
            ((row.id, row.metadata["heading"], row.text) for row in self.rows.values()),
        )

    def search(self, question: str, most: int) -> list[tuple[Row, float]]:
        """The passages that have words of the question, best first, with their scores (Okapi BM25, k1 = 1.2, b = 0.75)."""
        words = list(dict.fromkeys(WORD.findall(question)))[:MOST_WORDS]
        if not words:
            return []
        found = self._database.execute(
            "SELECT id, -rank FROM passages WHERE passages MATCH ? ORDER BY rank LIMIT ?",  # rank is bm25(), less is better
            (" OR ".join(f'"{word}"' for word in words), most),
        )
        return [(self.rows[id_], score) for id_, score in found]


def _current(rows: Iterable[Row]) -> tuple[dict[str, Row], int]:
    """The rows of each source's latest whole revision, by id, and how many others there are.

    A replace that was cut off leaves a part of the new passages beside the former ones, or the former beside the new.
    """
    revisions: dict[str, dict[int, list[Row]]] = {}
    for row in rows:
        revisions.setdefault(row.metadata["source"], {}).setdefault(row.metadata["written"], []).append(row)
    current: dict[str, Row] = {}
    others = 0
    for source in sorted(revisions):
        whole = [written for written, found in revisions[source].items() if len(found) == found[0].metadata["of"]]
        for written, found in revisions[source].items():
            if whole and written == max(whole):
                current |= {row.id: row for row in sorted(found, key=lambda row: row.metadata["start"])}
            else:
                others += len(found)
    return current, others
