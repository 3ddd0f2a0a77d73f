"""The model: naive Bayes over pieces of words, small enough to read, and it forgives typing errors."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

#: Overlapping pieces are no independent witnesses: their mean counts as this many. Chosen by cross-validation: with ten,
#: the router is on average as sure as it is right.
WITNESSES = 10


def pieces(text: str, longest: int) -> Counter[str]:
    """Every run of 2 to `longest` characters of a text, counted."""
    padded = " " + " ".join(text.lower().split()) + " "
    return Counter(
        padded[start : start + length]
        for length in range(2, longest + 1)
        for start in range(len(padded) - length + 1)
    )


class Router:
    """Says which part of the course a question belongs to."""

    def __init__(self, weights: dict[str, list[float]], unseen: list[float], labels: list[str], longest: int) -> None:
        self.weights, self.unseen, self.labels, self.longest = weights, unseen, labels, longest
        self.version = ""

    @classmethod
    def fit(cls, examples: Sequence[tuple[str, str]], *, longest: int, smoothing: float) -> Router:
        """Counts pieces in (label, text) pairs; `smoothing` is how often an unseen piece is taken to have occurred."""
        labels = sorted({label for label, _ in examples})
        counts = {label: Counter[str]() for label in labels}
        for label, text in examples:
            counts[label].update(pieces(text, longest))
        known = sorted({piece for counted in counts.values() for piece in counted})
        totals = [sum(counts[label].values()) + smoothing * len(known) for label in labels]
        weights = {
            piece: [math.log((counts[label][piece] + smoothing) / total) for label, total in zip(labels, totals)]
            for piece in known
        }
        return cls(weights, [math.log(smoothing / total) for total in totals], labels, longest)

    def route(self, text: str) -> tuple[str, float]:
        """The most likely label of a text, and how likely it is among the labels."""
        scores = [0.0] * len(self.labels)
        found = pieces(text, self.longest)
        for piece, times in found.items():
            for place, weight in enumerate(self.weights.get(piece, self.unseen)):
                scores[place] += times * weight
        scores = [WITNESSES * score / max(1, sum(found.values())) for score in scores]
        top = max(scores)
        shares = [math.exp(score - top) for score in scores]
        return self.labels[shares.index(max(shares))], max(shares) / sum(shares)

    def save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        held = {
            "labels": self.labels,
            "longest": self.longest,
            "unseen": [round(value, 4) for value in self.unseen],
            "weights": {piece: [round(value, 4) for value in row] for piece, row in self.weights.items()},
        }
        path.write_text(json.dumps(held))

    @classmethod
    def load(cls, path: Path) -> Router:
        """Reads what `save` wrote; its version is the file's SHA-256, so that every reply can name its weights."""
        text = path.read_bytes()
        held = json.loads(text)
        router = cls(held["weights"], held["unseen"], held["labels"], held["longest"])
        router.version = hashlib.sha256(text).hexdigest()[:12]
        return router
