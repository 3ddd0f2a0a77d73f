"""Samples of several figures, and their medians."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Sequence

import numpy as np


class Samples:
    """A list of samples for each figure."""

    def __init__(self) -> None:
        self._values: dict[str, list[float]] = defaultdict(list)

    def add(self, name: str, value: float) -> None:
        self._values[name].append(value)

    def medians(self, digits: int = 3) -> dict[str, float]:
        """Each figure's median."""
        return {name: round(statistics.median(values), digits) for name, values in self._values.items()}

    def as_json(self, digits: int = 3) -> dict[str, list[float]]:
        """All samples."""
        return {name: [round(value, digits) for value in values] for name, values in self._values.items()}


def quantiles_ms(seconds: Sequence[float]) -> dict[str, float]:
    """p50, p95 and p99 in milliseconds of times in seconds, by linear interpolation (numpy's default)."""
    names = ("p50_ms", "p95_ms", "p99_ms")
    return dict(zip(names, (float(q) * 1000 for q in np.quantile(list(seconds), (0.5, 0.95, 0.99))), strict=True))
