"""Retrieval: the nearest passages by vector and the best by words, put together by reciprocal rank fusion.

Cormack, Clarke and Büttcher 2009: each list gives a passage 1 / (60 + its rank), and the sums decide. No scale of one list has to
be held against that of the other. README.md has what each finds alone.
"""

from dataclasses import dataclass

from rag_service.chroma import Chroma, Row
from rag_service.documents import Documents
from rag_service.inference import Inference, Vector
from rag_service.stages import Stages

CANDIDATES = 20
RANK = 60


@dataclass(frozen=True, slots=True)
class Passage:
    """A part of a document, ``text == document[start:end]``; ``score`` is 1 for what both searches put first, 0 for nothing."""

    source: str
    heading: str
    text: str
    score: float
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Found:
    """What a search gave: passages, best first, the question's vector, and the cosine of the nearest passage to it."""

    passages: list[Passage]
    vector: Vector
    nearest: float


class Search:
    """Finds passages. Raises RequestError 409 where there are no documents, DependencyDown."""

    def __init__(self, documents: Documents, chroma: Chroma, inference: Inference) -> None:
        self._documents = documents
        self._chroma = chroma
        self._inference = inference

    async def find(self, question: str, k: int, stages: Stages) -> Found:
        """The ``k`` best passages for a question."""
        with stages.stage("embed", "inference"):
            (vector,) = await self._inference.embed([question])
        with stages.stage("search", "chroma"):
            collection, index = await self._documents.filled()
            near = await self._chroma.query(collection, vector, max(CANDIDATES, k))
            # What the index does not have is of a revision that was replaced, or is not whole yet.
            by_vector = [row for row in near if row.id in index.rows]
            by_words = index.search(question, max(CANDIDATES, k))
        best = fuse(by_vector, by_words)[:k]
        nearest = 1 - min((row.distance for row in by_vector), default=1.0)
        return Found([_passage(row, score) for row, score in best], vector, nearest)


def fuse(*lists: list[Row]) -> list[tuple[Row, float]]:
    """Rows with their scores from 0 to 1, best first; of equals, the one that the first list likes better."""
    scores: dict[str, float] = {}
    rows: dict[str, Row] = {}
    for ranked in lists:
        for rank, row in enumerate(ranked):
            rows.setdefault(row.id, row)
            scores[row.id] = scores.get(row.id, 0.0) + RANK / (RANK + rank) / len(lists)
    return [(rows[id_], scores[id_]) for id_ in sorted(scores, key=lambda id_: -scores[id_])]


def _passage(row: Row, score: float) -> Passage:
    facts = row.metadata
    return Passage(facts["source"], facts["heading"], row.text, round(score, 4), facts["start"], facts["end"])
