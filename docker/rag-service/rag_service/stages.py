"""The stages of one request: each is timed, counted and a span of its own."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rag_service.metrics import Metrics
from rag_service.tracing import Tracing


class Stages:
    """Seconds of each stage so far; a stage that comes twice is summed."""

    def __init__(self, metrics: Metrics, tracing: Tracing) -> None:
        self._metrics = metrics
        self._tracing = tracing
        self._start = time.perf_counter()
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str, peer: str) -> Iterator[None]:
        """Around the calls of ``peer`` that make up stage ``name``."""
        start = time.perf_counter()
        try:
            with self._tracing.call(name, peer):
                yield
        finally:
            took = time.perf_counter() - start
            self.seconds[name] = self.seconds.get(name, 0.0) + took
            self._metrics.stage_seconds.labels(name).observe(took)

    def report(self) -> dict[str, float]:
        """``embed``, ``search``, ``generate`` and ``total`` in seconds; 0 for a stage that was not needed."""
        named = {name: round(self.seconds.get(name, 0.0), 6) for name in ("embed", "search", "generate")}
        return {**named, "total": round(time.perf_counter() - self._start, 6)}
