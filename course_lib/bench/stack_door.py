"""What the front door costs: a request through nginx and TLS against the same one straight to the server's container."""

from __future__ import annotations

import json
import time
from typing import Any

import httpx

from course_lib import images, shell
from course_lib.bench.samples import Samples, quantiles_ms
from course_lib.errors import CourseError
from course_lib.stacks import Stack

#: Seconds from one request of a way to its next: one address may ask the front door 200 times a second.
_PAUSE = 1 / 100


def figures(stack: Stack, rounds: int, requests: int) -> dict[str, Any] | None:
    """Milliseconds of a row for the classifier, the smallest request there is, by one client whose connections stay open; the
    two ways take turns request by request. None where this machine has no way to a container's address (Docker Desktop).

    Raises:
        CourseError: a request was not answered.
    """
    body = {"model": "digits", "inputs": list(images.samples(1)[0].pixels)}
    samples = Samples()
    with stack.http() as door, _straight(stack) as server:
        try:
            server.get("/health", timeout=3)
        except httpx.TransportError:
            return None
        ways = {"through": door, "straight": server}
        for number in range(rounds + 1):
            times: dict[str, list[float]] = {name: [] for name in ways}
            for _ in range(requests):
                next_at = time.perf_counter() + _PAUSE
                for name, http in ways.items():
                    began = time.perf_counter()
                    answer = http.post("/predict", json=body)
                    times[name].append(time.perf_counter() - began)
                    if answer.status_code != 200:
                        raise CourseError(f"/predict answered {answer.status_code} {name}", why=answer.text[:300])
                time.sleep(max(0.0, next_at - time.perf_counter()))
            if number:  # the first is the warm-up
                for name, seconds in times.items():
                    for quantile, value in quantiles_ms(seconds).items():
                        samples.add(f"{name}_{quantile}", value)
    found = samples.medians()
    return {
        **found,
        "p50_ratio": round(found["through_p50_ms"] / found["straight_p50_ms"], 2),
        "p50_more_ms": round(found["through_p50_ms"] - found["straight_p50_ms"], 2),
        "samples": samples.as_json(),
    }


def _straight(stack: Stack) -> httpx.Client:
    """A client for the first replica's own address."""
    replica = next(one.container for one in stack.states() if one.service == "inference")
    inspected = shell.run(["docker", "container", "inspect", replica], show=False).stdout
    attached = json.loads(inspected)[0]["NetworkSettings"]["Networks"]
    address = next(iter(attached.values()))["IPAddress"]
    headers = {"Authorization": f"Bearer {stack.key}"}
    return httpx.Client(base_url=f"http://{address}:8080", headers=headers, timeout=60, trust_env=False)
