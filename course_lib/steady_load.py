"""A steady load: requests begin at fixed times, whether or not earlier ones have been answered, and each one's fate is kept.

Users don't wait for one another. A load whose clients wait for their answers slows down with the server and hides its worst
moments (https://www.scylladb.com/2021/04/22/on-coordinated-omission/); this one does not.
"""

from __future__ import annotations

import asyncio
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import httpx
import numpy as np
import pandas as pd

from course_lib.errors import CourseError


@dataclass(frozen=True)
class Sent:
    """One request: when it began (seconds after the load did), how long it took, its status (0: no answer), what went wrong."""

    began: float
    seconds: float
    status: int
    error: str = ""
    number: int = 0
    """The first of a load is 0."""
    version: str = ""
    """Of the model that answered, as the course's server says in its header X-Model-Version."""
    answer: str = ""
    """Its text, where the load was told to keep answers."""

    @property
    def lost(self) -> bool:
        """No whole answer with a status below 500. A 429 is an answer: the client is told to come back."""
        return self.status == 0 or self.status >= 500


class SteadyLoad:
    """Sends a request again and again in the background, from entering the block until leaving it.

    Args:
        url: the address, its path included.
        body: JSON that is posted; with None the address is got. A function gives the JSON and further headers of each
            request, by its number.
        rate: requests a second.
        ca: file of the authority that signed the server's certificate.
        streamed: whether the answer is read piece by piece; one that breaks off in the middle counts as lost.
        keep_answers: whether the text of each answer is kept.
        keep_alive: whether connections are used again. What shares connections out, and not requests, as a Kubernetes
            Service does, sees many users only without.
    """

    def __init__(
        self,
        url: str,
        body: Mapping[str, Any] | Callable[[int], tuple[Mapping[str, Any], Mapping[str, str]]] | None,
        *,
        rate: float,
        headers: Mapping[str, str] | None = None,
        ca: str | None = None,
        timeout: float = 30,
        streamed: bool = False,
        keep_answers: bool = False,
        keep_alive: bool = True,
    ) -> None:
        self.url, self.body, self.rate, self.timeout, self.streamed = url, body, rate, timeout, streamed
        self._keep_answers = keep_answers
        self._headers = dict(headers or {})
        self._verify: ssl.SSLContext | bool = ssl.create_default_context(cafile=ca) if ca else True
        self._limits = httpx.Limits(max_connections=1000, max_keepalive_connections=100 if keep_alive else 0)
        self._ready, self._stop = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)
        self._sent: list[Sent] = []
        self.started = 0.0
        """`time.monotonic()` when the first request was due."""
        self._seconds = 0.0

    def __enter__(self) -> SteadyLoad:
        self._thread.start()
        self._ready.wait(30)
        return self

    def __exit__(self, *what: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._stop.set()
        self._thread.join(self.timeout + 10)
        self._seconds = time.monotonic() - self.started
        if what[0] is None and not self._sent:
            raise CourseError("the load sent nothing", do="Leave the block open for a second at least.")

    def run_for(self, seconds: float) -> None:
        """Lets the load run on for a while."""
        self._stop.wait(seconds)

    @property
    def sent(self) -> list[Sent]:
        """What has been answered or given up so far, in the order of the ends."""
        return list(self._sent)

    @property
    def lost(self) -> list[Sent]:
        return [one for one in self._sent if one.lost]

    def frame(self) -> pd.DataFrame:
        """One row a request: began, seconds, status, lost, error."""
        return pd.DataFrame(
            [
                {"began": s.began, "seconds": s.seconds, "status": s.status, "lost": s.lost, "error": s.error}
                for s in sorted(self._sent, key=lambda s: s.began)
            ]
        )

    def row(self) -> dict[str, object]:
        """One line of a table."""
        times = [one.seconds * 1000 for one in self._sent if not one.lost]
        p50, p95, p99 = np.quantile(times, [0.5, 0.95, 0.99]) if times else (float("nan"),) * 3
        return {
            "requests": len(self._sent),
            "asked/s": f"{self.rate:g}",
            "sent/s": f"{len(self._sent) / max(self._seconds, 1e-9):.1f}",
            "lost": len(self.lost),
            "p50 ms": f"{p50:.1f}",
            "p95 ms": f"{p95:.1f}",
            "p99 ms": f"{p99:.1f}",
        }

    async def _run(self) -> None:
        async with httpx.AsyncClient(
            verify=self._verify, headers=self._headers, timeout=self.timeout, limits=self._limits, trust_env=False
        ) as http:
            running: set[asyncio.Task[None]] = set()
            number = 0
            self.started = time.monotonic()  # not before: a client takes a while to make
            self._ready.set()
            while not self._stop.is_set():
                due = self.started + number / self.rate
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                task = asyncio.create_task(self._one(http, number))
                running.add(task)
                task.add_done_callback(running.discard)
                number += 1
            if running:
                await asyncio.gather(*running)

    async def _one(self, http: httpx.AsyncClient, number: int) -> None:
        body, headers = self.body(number) if callable(self.body) else (self.body, {})
        began = time.monotonic()
        status, error, version, text = 0, "", "", ""
        try:
            if self.streamed:
                async with http.stream("POST", self.url, json=body, headers=dict(headers)) as answer:
                    whole = b""
                    async for piece in answer.aiter_bytes():
                        whole += piece
                    status = answer.status_code
                if status == 200 and b"[DONE]" not in whole:
                    status, error = 0, "the stream ended before [DONE]"
            else:
                method = "GET" if body is None else "POST"
                answer = await http.request(method, self.url, json=body, headers=dict(headers))
                status = answer.status_code
                error = answer.text[:200] if status >= 400 else ""
                text = answer.text if self._keep_answers else ""
            version = answer.headers.get("X-Model-Version", "")
        except httpx.HTTPError as failed:
            error = f"{type(failed).__name__}: {failed}"
        self._sent.append(Sent(began - self.started, time.monotonic() - began, status, error, number, version, text))
