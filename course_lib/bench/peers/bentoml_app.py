"""BentoML with its adaptive batching; streams, which it does not batch, are asynchronous generators. `bentoml serve bentoml_app:Peer`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import bentoml
from model import BATCH, WORKERS, event, load

LONGEST_MS = 30_000  # requests that it expects to take longer are refused


@bentoml.service(workers=WORKERS, traffic={"timeout": 60, "concurrency": BATCH})
class Peer:
    """One model a worker."""

    def __init__(self) -> None:
        self.model = load()

    @bentoml.api(batchable=True, max_batch_size=BATCH, max_latency_ms=LONGEST_MS)
    def generate(self, requests: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """A batch of texts."""
        return list(self.model.answer(requests))

    @bentoml.api(batchable=True, max_batch_size=BATCH, max_latency_ms=LONGEST_MS)
    def classify(self, requests: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """A batch of rows."""
        return list(self.model.answer(requests))

    @bentoml.api
    async def stream(self, prompt: str, max_tokens: int) -> AsyncGenerator[str, None]:
        """Every stream has a generator of its own; they take turns, token by token."""
        for pieces in self.model.stream([{"prompt": prompt, "max_tokens": max_tokens}]):
            yield event(pieces[0])
            await asyncio.sleep(0)
