"""Retrieval: the nearest passages by vector and the best by words, put together by relative score fusion.

Each list's scores are divided by its best, and a passage gets the weighted sum; where a list does not have it, nothing. README.md has
what each finds alone, and why it is not reciprocal rank fusion.
"""

from dataclasses import dataclass

from rag_service.chroma import Chroma, Row
from rag_service.documents import Documents
from rag_service.inference import Inference, Vector
from rag_service.settings import Settings
from rag_service.stages import Stages

CANDIDATES = 50  # of each list


@dataclass(frozen=True, slots=True)
class Passage:
    """A part of a document, ``text == document[start:end]``; ``score`` is 1 for what both searches put first."""

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

    def __init__(self, settings: Settings, documents: Documents, chroma: Chroma, inference: Inference) -> None:
        self._weight = settings.vector_weight
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
            by_vector = [(row, similarity(row, collection.space)) for row in near if row.id in index.rows]
            by_words = index.search(question, max(CANDIDATES, k))
        best = fuse((by_vector, self._weight), (by_words, 1 - self._weight))[:k]
        nearest = max((score for _, score in by_vector), default=0.0)
        return Found([_passage(row, score) for row, score in best], vector, nearest)


Ranked = list[tuple[Row, float]]


def fuse(*lists: tuple[Ranked, float]) -> Ranked:
    """Rows with their scores from 0 to 1, best first, from lists with their weights; weight 0 leaves a list out."""
    scores: dict[str, float] = {}
    rows: dict[str, Row] = {}
    for ranked, weight in lists:
        best = max((score for _, score in ranked), default=0.0)
        if weight and best > 0:
            for row, score in ranked:
                rows[row.id] = row
                scores[row.id] = scores.get(row.id, 0.0) + weight * max(0.0, score) / best
    return [(rows[id_], scores[id_]) for id_ in sorted(scores, key=lambda id_: -scores[id_])]


def similarity(row: Row, space: str) -> float:
    """The cosine, from Chroma's distance: of vectors of length 1, which embedders give, in every space."""
    return 1 - row.distance / 2 if space == "l2" else 1 - row.distance


def _passage(row: Row, score: float) -> Passage:
    facts = row.metadata
    return Passage(facts["source"], facts["heading"], row.text, round(score, 4), facts["start"], facts["end"])
