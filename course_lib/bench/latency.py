"""How long a server takes to answer: a closed loop of clients, every request timed."""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import httpx
import numpy as np

from course_lib.errors import CourseError
from course_lib.lab.steps import record


@dataclass(frozen=True)
class Latencies:
    """The times of a run of requests.

    `milliseconds` holds one entry a request; `seconds` is the whole run's length.
    """

    milliseconds: tuple[float, ...]
    seconds: float
    clients: int

    def quantile(self, q: float) -> float:
        """The q-quantile in milliseconds, by linear interpolation between order statistics (numpy's default)."""
        return float(np.quantile(self.milliseconds, q))

    @property
    def per_second(self) -> float:
        """Requests a second over the whole run."""
        return len(self.milliseconds) / self.seconds

    def row(self) -> dict[str, object]:
        """One line of a table."""
        quantiles = {f"p{int(q * 100)} ms": f"{self.quantile(q):.1f}" for q in (0.5, 0.95, 0.99)}
        return {
            "clients": self.clients,
            "requests": len(self.milliseconds),
            **quantiles,
            "requests/s": f"{self.per_second:.0f}",
        }


def measure(
    url: str, path: str, body: Mapping[str, Any], *, requests: int = 200, clients: int = 4, warm_up: int = 10
) -> Latencies:
    """Sends the same request over and over from several clients, each waiting for its answer before it asks again.

    Args:
        requests: how many in all.
        clients: how many ask at once, each on its own connection.
        warm_up: requests before the clock starts.

    Raises:
        CourseError: a request failed; a latency without an answer is none.
    """
    share = [requests // clients + (i < requests % clients) for i in range(clients)]

    def one_client(count: int) -> list[float]:
        times = []
        with httpx.Client(base_url=url, timeout=60, trust_env=False) as http:
            for _ in range(count):
                started = time.perf_counter()
                answer = http.post(path, json=dict(body))
                times.append((time.perf_counter() - started) * 1000)
                if answer.status_code != 200:
                    raise CourseError(f"{path} answered {answer.status_code} under load", why=answer.text[:300])
        return times

    one_client(warm_up)
    started = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        times = [t for result in pool.map(one_client, share) for t in result]
    found = Latencies(tuple(times), time.perf_counter() - started, clients)
    record("server.latency", "http", url + path, **found.row())
    return found
