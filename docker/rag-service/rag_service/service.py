"""The service put together: what a request needs, and the watch that keeps the gauges right between requests."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Any

from rag_service.answering import Answering
from rag_service.cache import Cache, digest
from rag_service.chroma import Chroma
from rag_service.documents import Documents
from rag_service.errors import DependencyDown, RequestError
from rag_service.inference import Inference
from rag_service.metrics import Metrics
from rag_service.search import Found, Search
from rag_service.settings import Settings
from rag_service.stages import Stages
from rag_service.tracing import Tracing

log = logging.getLogger("rag_service")
#: Settings that an answer depends on, beside the documents.
DEPENDS = (
    "answer_mode",
    "answer_tokens",
    "chat_model",
    "embeddings_model",
    "least_similarity",
    "prompt_characters",
    "vector_weight",
)
LOOK_SECONDS = 2.0
WATCH_SECONDS = 3.0


class Rag:
    """Everything that lives as long as the process."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.tracing = Tracing(settings)
        up = self.metrics.dependency_up
        self.chroma = Chroma(settings, up.labels("chroma"))
        self.inference = Inference(settings, up.labels("inference"))
        self.documents = Documents(settings, self.metrics, self.chroma, self.inference)
        self.search = Search(settings, self.documents, self.chroma, self.inference)
        self.answering = Answering(settings, self.inference)
        self.cache = Cache(settings, self.metrics.cache_requests)

    def stages(self) -> Stages:
        """The stages of a new request."""
        return Stages(self.metrics, self.tracing)

    async def find(self, question: str, k: int | None, stages: Stages) -> Found:
        """The best passages for a question. Raises RequestError."""
        await self.documents.filled()  # nothing there: said at once, without asking the embedder
        return await self.search.find(question, k or self.settings.top_k, stages)

    async def answer(self, question: str, k: int | None, stages: Stages) -> dict[str, Any]:
        """The body of an answer, from the cache where nothing that it depends on has changed. Raises RequestError."""
        collection, _ = await self.documents.filled()
        given = self.settings
        depends = [getattr(given, name) for name in DEPENDS]
        key = digest(question, k or given.top_k, collection.version, depends)
        body = await self.cache.get(key)
        cached = body is not None
        if body is None:
            found = await self.search.find(question, k or given.top_k, stages)
            with stages.stage("generate", "inference"):
                answer = await self.answering.answer(question, found)
            body = {
                "answer": answer.text,
                "answered_by": answer.answered_by,
                "grounded": answer.grounded,
                "sources": [asdict(each) for each in answer.sources],
                "model": given.chat_model,
            }
            await self.cache.put(key, body)
        self.metrics.answers.labels(body["answered_by"]).inc()
        return {**body, "cached": cached, "seconds": stages.report()}

    async def problems(self) -> dict[str, str]:
        """Which dependency does not answer, and why; empty where all do."""
        looks: dict[str, Callable[[float], Awaitable[None]]] = {
            "chroma": self.chroma.look,
            "inference": self.inference.look,
        }
        results = await asyncio.gather(*(look(LOOK_SECONDS) for look in looks.values()), return_exceptions=True)
        found = {}
        for name, result in zip(looks, results, strict=True):
            if isinstance(result, RequestError):
                found[name] = result.message
            elif isinstance(result, BaseException):
                raise result
        return found

    async def watch(self) -> None:
        """Every few seconds: do they answer, and what is in the collection? Others write to it, and restore it."""
        known: dict[str, str] = {}
        while True:
            try:
                problems = await self.problems()
                for name in problems.keys() - known.keys():
                    log.warning(
                        "a dependency is away", extra={"fields": {"dependency": name, "reason": problems[name]}}
                    )
                for name in known.keys() - problems.keys():
                    log.info("a dependency is back", extra={"fields": {"dependency": name}})
                known = problems
                if "chroma" not in problems:
                    await self.documents.refresh()
            except DependencyDown:
                pass  # the next round says so
            except Exception:
                log.exception("bug in the watch")
            await asyncio.sleep(WATCH_SECONDS)

    async def close(self) -> None:
        """Close what is open."""
        await asyncio.gather(self.chroma.close(), self.inference.close(), self.cache.close())
        await asyncio.to_thread(self.tracing.close)
