"""Chroma, by its HTTP API (/api/v2): one collection, its rows, and a version that changes with every write.

By plain HTTP: `chromadb-client` would bring 35 packages, NumPy, gRPC and telemetry among them, for these nine requests.
"""

import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from prometheus_client import Gauge

from rag_service.calls import Service
from rag_service.errors import DependencyDown, Refused, RequestError
from rag_service.settings import Settings

API = "api/v2"
DATABASE = f"{API}/tenants/default_tenant/databases/default_database/collections"
PAGE = 500  # rows in one request; Chroma takes ten times as many
Where = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Collection:
    """What Chroma says of a collection; ``dimension`` is None until it holds a vector."""

    id: str
    name: str
    dimension: int | None
    space: str
    metadata: dict[str, Any]

    @property
    def version(self) -> str:
        """Differs after each write of this service, and after its restore."""
        return f"{self.id}/{self.metadata.get('version', '')}"


@dataclass(frozen=True, slots=True)
class Row:
    """A passage as Chroma keeps it; ``vector`` and ``distance`` only where they were asked for."""

    id: str
    text: str
    metadata: dict[str, Any]
    vector: list[float] | None = None
    distance: float = 0.0


class Chroma:
    """Every method raises DependencyDown where Chroma gives no answer."""

    def __init__(self, settings: Settings, up: Gauge) -> None:
        self._settings = settings
        self._service = Service("chroma", settings.chroma_url, settings.timeout_seconds, up)

    async def look(self, seconds: float) -> None:
        """Raises DependencyDown where it does not answer within ``seconds``."""
        try:
            await self._service.call("GET", f"{API}/heartbeat", seconds=seconds)
        except Refused as refused:
            raise DependencyDown("chroma", f"status {refused.status}; this service speaks /api/v2") from None

    async def server_version(self) -> str:
        """What it calls the version of its API."""
        return str(await self._service.call("GET", f"{API}/version"))

    async def find(self, name: str | None = None) -> Collection | None:
        """The collection of the settings, or another; None where there is none."""
        name = name or self._settings.collection
        try:
            return _collection(await self._service.call("GET", f"{DATABASE}/{name}"))
        except Refused as refused:
            if refused.status == 404:
                return None
            raise _unexpected(refused) from None

    async def ensure(self, name: str | None = None) -> Collection:
        """The collection, made with the HNSW settings where it is missing."""
        found = await self.find(name)
        if found:
            return found
        given = self._settings
        hnsw = {
            "space": given.hnsw_space,
            "ef_construction": given.hnsw_ef_construction,
            "ef_search": given.hnsw_ef_search,
            "max_neighbors": given.hnsw_max_neighbors,
        }
        body = {
            "name": name or given.collection,
            "get_or_create": True,
            "configuration": {"hnsw": hnsw},
            "metadata": {"embeddings_model": given.embeddings_model, "version": new_version()},
        }
        return _collection(await self._ask("POST", DATABASE, body))

    async def upsert(self, collection: Collection, rows: list[Row]) -> None:
        """Write rows, by their ids over those that are there."""
        for start in range(0, len(rows), PAGE):
            part = rows[start : start + PAGE]
            body = {
                "ids": [row.id for row in part],
                "embeddings": [row.vector for row in part],
                "documents": [row.text for row in part],
                "metadatas": [row.metadata for row in part],
            }
            await self._ask("POST", f"{DATABASE}/{collection.id}/upsert", body)

    async def delete(self, collection: Collection, where: Where) -> None:
        """Delete the rows with such metadata."""
        await self._ask("POST", f"{DATABASE}/{collection.id}/delete", {"where": where})

    async def mark(self, collection: Collection) -> None:
        """Give the collection a new version: what others remember of it is out of date."""
        metadata = {**collection.metadata, "version": new_version()}
        await self._ask("PUT", f"{DATABASE}/{collection.id}", {"new_metadata": metadata})

    async def rename(self, collection: Collection, name: str) -> None:
        """Give the collection another name."""
        await self._ask("PUT", f"{DATABASE}/{collection.id}", {"new_name": name})

    async def drop(self, name: str) -> None:
        """Delete a collection, if there is one."""
        if await self.find(name):
            await self._ask("DELETE", f"{DATABASE}/{name}")

    async def query(self, collection: Collection, vector: list[float], most: int) -> list[Row]:
        """The nearest rows, nearest first."""
        body = {"query_embeddings": [vector], "n_results": most, "include": ["documents", "metadatas", "distances"]}
        found = await self._ask("POST", f"{DATABASE}/{collection.id}/query", body)
        columns = (found[name][0] for name in ("ids", "documents", "metadatas", "distances"))
        return [
            Row(id_, text, metadata, distance=distance) for id_, text, metadata, distance in zip(*columns, strict=True)
        ]

    async def count(self, collection: Collection) -> int:
        """How many rows it has."""
        return int(await self._ask("GET", f"{DATABASE}/{collection.id}/count"))

    async def rows(
        self, collection: Collection, vectors: bool = False, where: Where | None = None
    ) -> AsyncIterator[Row]:
        """All rows, or those with such metadata, read page by page."""
        include = ["documents", "metadatas", *(["embeddings"] if vectors else [])]
        offset = 0
        while True:
            body = {"include": include, "limit": PAGE, "offset": offset, **({"where": where} if where else {})}
            page = await self._ask("POST", f"{DATABASE}/{collection.id}/get", body)
            ids = page["ids"]
            columns = page["documents"], page["metadatas"], page["embeddings"] or [None] * len(ids)
            for id_, text, metadata, vector in zip(ids, *columns, strict=True):
                yield Row(id_, text or "", metadata or {}, vector)
            if len(ids) < PAGE:
                return
            offset += PAGE

    async def close(self) -> None:
        """Close its connections."""
        await self._service.close()

    async def _ask(self, method: str, path: str, body: object = None) -> Any:
        try:
            return await self._service.call(method, path, body)
        except Refused as refused:
            raise _unexpected(refused) from None


def new_version() -> str:
    """A version no collection had yet."""
    return secrets.token_hex(8)


def _collection(body: Any) -> Collection:
    space = ((body.get("configuration_json") or {}).get("hnsw") or {}).get("space", "l2")  # Chroma's own default
    return Collection(body["id"], body["name"], body.get("dimension"), space, body.get("metadata") or {})


def _unexpected(refused: Refused) -> RequestError:
    """A collection that is gone since it was looked up, vectors that do not fit it, or an API that changed."""
    if refused.status == 404:
        return RequestError(503, "The documents were just replaced: ask again.", "collection_changed", retry_after=1)
    if "dimension" in refused.reason:
        return RequestError(
            409,
            f"The collection holds vectors of another embedder ({refused.reason}): set COLLECTION to a new name and "
            "ingest again, or EMBEDDINGS_MODEL back to the former.",
            "other_embedder",
        )
    return RequestError(502, f"{refused}. Look at CHROMA_URL and Chroma's log.", "chroma_refuses")
