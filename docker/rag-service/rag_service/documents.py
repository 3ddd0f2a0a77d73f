"""The documents: taken in, replaced, removed and listed; and an index of their words that follows the collection."""

import asyncio
import time
from collections import Counter
from contextlib import suppress

from rag_service.chroma import Chroma, Collection, Row
from rag_service.chunking import Chunk, cut
from rag_service.errors import RequestError, nothing_ingested
from rag_service.inference import Inference
from rag_service.metrics import Metrics
from rag_service.settings import Settings
from rag_service.words import FIELDS, WordIndex


class Documents:
    """What is in the collection. Other replicas write to it, too: every read asks Chroma which version it has."""

    def __init__(self, settings: Settings, metrics: Metrics, chroma: Chroma, inference: Inference) -> None:
        self._settings = settings
        self._metrics = metrics
        self._chroma = chroma
        self._inference = inference
        self._index = WordIndex("", [])
        self._reading = asyncio.Lock()

    async def replace(self, source: str, text: str) -> int:
        """Take in a document; return the number of its passages.

        The new passages are written before the former are deleted, so that a failure loses nothing: readers take the
        latest revision that is whole. What was written earlier is deleted, and a writer who was overtaken deletes its own, so
        that of two writers the later one wins.
        """
        chunks = cut(source, text, self._settings.chunk_characters, self._settings.chunk_overlap)
        if not chunks:
            raise RequestError(422, "text: there is nothing in it but headings: send some text.", "empty_text", "text")
        vectors = await self._inference.embed([chunk.with_heading for chunk in chunks])
        collection = await self._chroma.ensure()
        self._same_embedder(collection)
        written = time.time_ns() // 1000
        rows = [
            Row(f"{source}#{written}#{number}", chunk.text, _metadata(chunk, written, len(chunks)), vector)
            for number, (chunk, vector) in enumerate(zip(chunks, vectors, strict=True))
        ]
        try:
            await self._chroma.upsert(collection, rows)
        except RequestError:
            with suppress(RequestError):  # a part of them may be there
                await self._chroma.delete(collection, {"$and": [{"source": source}, {"written": written}]})
            raise
        await self._chroma.mark(collection)
        await self._chroma.delete(collection, {"$and": [{"source": source}, {"written": {"$lt": written}}]})
        if await self._overtaken(collection, source, written):
            await self._chroma.delete(collection, {"$and": [{"source": source}, {"written": written}]})
            await self._chroma.mark(collection)
        return len(rows)

    async def _overtaken(self, collection: Collection, source: str, written: int) -> bool:
        """Whether a later revision is whole already: its writer had deleted what was earlier before this one came in."""
        later: Counter[tuple[int, int]] = Counter()
        async for row in self._chroma.rows(
            collection, where={"$and": [{"source": source}, {"written": {"$gt": written}}]}
        ):
            later[row.metadata["written"], row.metadata["of"]] += 1
        return any(count == of for (_, of), count in later.items())

    async def remove(self, source: str) -> int:
        """Remove a document; return how many passages it had. Raises RequestError 404."""
        collection, index = await self.current()
        if source not in index.counts:
            raise RequestError(
                404, f"There is no document {source[:200]!r}: GET /documents lists them.", "no_such_document", "source"
            )
        assert collection
        await self._chroma.delete(collection, {"source": source})
        await self._chroma.mark(collection)
        return index.counts[source]

    async def current(self) -> tuple[Collection | None, WordIndex]:
        """The collection as it is now, with an index of the same version; None where nothing was ever ingested."""
        collection = await self._chroma.find()
        if collection is None:
            self._take(WordIndex("", []))
        elif collection.version != self._index.version:
            async with self._reading:  # one reader at a time; the others find what it read
                if collection.version != self._index.version:
                    await self._read(collection)
        return collection, self._index

    async def filled(self) -> tuple[Collection, WordIndex]:
        """As ``current``; raises RequestError 409 where there is nothing."""
        collection, index = await self.current()
        if collection is None or not index.rows:
            raise nothing_ingested()
        return collection, index

    async def refresh(self) -> None:
        """Follow what others did: writes of another replica, a restored volume."""
        collection, index = await self.current()
        if collection and await self._chroma.count(collection) != len(index.rows) + index.leftovers:
            async with self._reading:
                await self._read(collection)

    async def _read(self, collection: Collection) -> None:
        rows = [row async for row in self._chroma.rows(collection) if row.metadata.keys() >= FIELDS]
        self._take(await asyncio.to_thread(WordIndex, collection.version, rows))

    def _take(self, index: WordIndex) -> None:
        self._index = index
        self._metrics.documents.set(len(index.counts))
        self._metrics.chunks.set(len(index.rows))

    def _same_embedder(self, collection: Collection) -> None:
        """Raises RequestError 409: two embedders' vectors can have one size and still mean different things."""
        theirs = collection.metadata.get("embeddings_model", self._settings.embeddings_model)
        if theirs != self._settings.embeddings_model:
            raise RequestError(
                409,
                f"The collection {collection.name} was made with the embedder {theirs!r}, not {self._settings.embeddings_model!r}: "
                "set COLLECTION to a new name and ingest again.",
                "other_embedder",
            )


def _metadata(chunk: Chunk, written: int, of: int) -> dict[str, str | int]:
    return {
        "source": chunk.source,
        "heading": chunk.heading,
        "start": chunk.start,
        "end": chunk.end,
        "written": written,
        "of": of,
    }
