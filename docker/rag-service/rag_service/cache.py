"""Answers in Redis. A Redis that is slow or away costs CACHE_TIMEOUT_SECONDS at most, and never an answer."""

import asyncio
import hashlib
import json
import logging
from pathlib import Path
from typing import Any

from prometheus_client import Counter
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.credentials import CredentialProvider
from redis.exceptions import RedisError

from rag_service.settings import Settings

log = logging.getLogger("rag_service")
FIELDS = {"answer", "answered_by", "grounded", "sources", "model"}  # of an answer
MOST_BYTES = 1_048_576


class Cache:
    """Answers by a digest of all that they depend on; with an empty CACHE_URL it has nothing and counts nothing."""

    def __init__(self, settings: Settings, requests: Counter) -> None:
        self._seconds, self._timeout = settings.cache_seconds, settings.cache_timeout_seconds
        self._requests = requests
        self._failing = False
        self._redis: Redis | None = None
        if settings.cache_url:
            self._redis = Redis.from_url(
                settings.cache_url,
                credential_provider=_Password(Path(settings.cache_password_file))
                if settings.cache_password_file
                else None,
                retry=Retry(NoBackoff(), 1),  # once: a connection that was idle may have been closed
            )

    async def get(self, key: str) -> dict[str, Any] | None:
        """What was kept under a key, counted as hit, miss or error."""
        if self._redis is None:
            return None
        found = None
        try:
            async with asyncio.timeout(self._timeout):
                text = await self._redis.get(key)
            if text is not None:
                found = json.loads(text)
                if not isinstance(found, dict) or found.keys() != FIELDS:
                    raise ValueError("no answer of this service")
        except (RedisError, OSError, TimeoutError, ValueError) as error:
            self._failed(error)
            return None
        self._failing = False
        self._requests.labels("miss" if found is None else "hit").inc()
        return found

    async def put(self, key: str, answer: dict[str, Any]) -> None:
        """Keep an answer for CACHE_SECONDS; not while Redis fails, where ``get`` has just paid for that."""
        if self._redis is None or self._failing:
            return
        text = json.dumps(answer)
        if len(text) > MOST_BYTES:
            return
        try:
            async with asyncio.timeout(self._timeout):
                await self._redis.set(key, text, ex=self._seconds)
        except (RedisError, OSError, TimeoutError) as error:
            self._failed(error)

    async def close(self) -> None:
        """Close its connections."""
        if self._redis is not None:
            await self._redis.aclose()

    def _failed(self, error: Exception) -> None:
        self._requests.labels("error").inc()
        if not self._failing:  # once, not with every request
            log.warning("the cache fails", extra={"fields": {"reason": f"{type(error).__name__}: {error}"[:200]}})
        self._failing = True


class _Password(CredentialProvider):
    """The password in a file, read at every connection, so that a new one needs no restart."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def get_credentials(self) -> tuple[str]:
        """See redis.credentials."""
        return (self._file.read_text(encoding="utf-8").strip(),)


def digest(*parts: object) -> str:
    """A key that tells nothing of the question."""
    return "rag:" + hashlib.sha256(json.dumps(parts).encode()).hexdigest()
