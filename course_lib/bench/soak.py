"""`course bench soak`: everything at once for ten minutes, rude clients and reloads among it; memory has to stay where it was."""

from __future__ import annotations

import datetime
import json
import random
import re
import shutil
import signal
import socket
import statistics
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil

from course_lib import waits
from course_lib.bench import contestants, workload
from course_lib.bench.contestants import Running
from course_lib.bench.machine import cpu_name, cpus, ended_by_sigterm
from course_lib.errors import CourseError

CLIENTS = 6
LONGEST_WARM_UP = 60
NOISE_MB = 10.0
"""What may come and go with reloads and with malloc; a leak goes beyond it."""

_JSON = {"Content-Type": "application/json"}

Way = Callable[["_Client"], None]


class _Wrong(Exception):
    """An answer that is not what it has to be."""


@dataclass
class _Client:
    """One client of the crowd: a connection, its own dice, and what it may ask."""

    http: httpx.Client
    chance: random.Random
    texts: list[workload.Text]
    rows: list[list[float]]

    def chat(self, **more: object) -> dict[str, Any]:
        prompt, tokens = self.chance.choice(self.texts)
        return {"messages": [{"role": "user", "content": prompt}], "max_tokens": min(tokens, 64), **more}

    def expect(self, status: int, path: str, **how: Any) -> httpx.Response:
        answer = self.http.post(path, **how)
        if answer.status_code != status:
            raise _Wrong(f"{path} answered {answer.status_code} instead of {status}: {answer.text[:200]}")
        return answer


def _whole(client: _Client) -> None:
    body = client.chat(temperature=1)
    answer = client.expect(200, "/v1/chat/completions", json=body).json()
    finish, tokens = answer["choices"][0]["finish_reason"], answer["usage"]["completion_tokens"]
    if (finish, tokens == body["max_tokens"]) not in (("length", True), ("stop", False)):
        raise _Wrong(f"an answer of {tokens} tokens instead of {body['max_tokens']} that ends for {finish}")


def _streamed(client: _Client) -> None:
    with client.http.stream("POST", "/v1/chat/completions", json=client.chat(stream=True)) as answer:
        lines = [line for line in answer.iter_lines() if line]
    if lines[-1:] != ["data: [DONE]"]:
        raise _Wrong(f"a stream ended with {lines[-1:]}")


def _vanished(client: _Client) -> None:
    """Leaves in mid-stream; httpx closes the connection, as what was not read stands in the way of the next answer."""
    with client.http.stream("POST", "/v1/chat/completions", json=client.chat(stream=True)) as answer:
        for _, _line in zip(range(client.chance.randint(1, 12)), answer.iter_lines(), strict=False):
            pass


def _hung_up(client: _Client) -> None:
    """Leaves in the middle of its own request."""
    url = client.http.base_url
    with socket.create_connection((url.host, url.port), timeout=30) as connection:
        sent = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n{"
        connection.sendall(sent[: client.chance.randint(1, len(sent))])


def _row(client: _Client) -> None:
    client.expect(200, "/predict", json={"inputs": client.chance.choice(client.rows), "model": "digits"})


def _batch(client: _Client) -> None:
    rows = client.chance.sample(client.rows, 20)
    if client.expect(200, "/batch_predict", json={"inputs": rows, "model": "digits"}).json()["failed"]:
        raise _Wrong("rows of a batch failed")


def _embedded(client: _Client) -> None:
    texts = [text for text, _ in client.chance.sample(client.texts, 4)]
    client.expect(200, "/v1/embeddings", json={"input": texts, "model": "embedder"})


def _refused(client: _Client) -> None:
    """Something is wrong with it, each time something else, with names that nobody sent before."""
    unknown = f"model-{client.chance.randrange(10**9)}"
    nested = {"content": b"[" * 50_000, "headers": _JSON}
    long = [{"role": "user", "content": f"{unknown} " * 20_000}]
    wrong: list[tuple[int, str, dict[str, Any]]] = [
        (404, "/predict", {"json": {"inputs": "x", "model": unknown}}),
        (404, f"/{unknown}", {"json": {}}),
        (400, "/v1/chat/completions", {"json": {"messages": unknown}}),
        (400, "/v1/chat/completions", {"json": {"messages": long}}),
        (422, "/predict", {"json": {"inputs": [unknown], "model": "digits"}}),
        (422, "/predict", {"content": f'{{"inputs": "{unknown}', "headers": _JSON}),
        (400, "/predict", nested),
        (415, "/predict", {"content": unknown, "headers": {"Content-Type": "text/plain"}}),
    ]
    status, path, how = client.chance.choice(wrong)
    client.expect(status, path, **how)


def _too_large(client: _Client) -> None:
    client.expect(413, "/predict", content=b"x" * 1_100_000, headers=_JSON)


#: What the crowd does, and how often beside the others.
WAYS: Mapping[str, tuple[Way, int]] = {
    "whole answers": (_whole, 6),
    "streams": (_streamed, 6),
    "streams left early": (_vanished, 3),
    "requests broken off": (_hung_up, 1),
    "rows": (_row, 12),
    "batches of rows": (_batch, 3),
    "embeddings": (_embedded, 3),
    "wrong requests": (_refused, 4),
    "bodies too large": (_too_large, 1),
}


@dataclass
class _Crowd:
    """Clients that do one thing after the other until they are told to stop."""

    server: Running
    texts: list[workload.Text]
    done: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _stop: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> _Crowd:
        rows = workload.rows()
        for number in range(CLIENTS):
            thread = threading.Thread(target=self._run, args=(number, rows), daemon=True)
            self._threads.append(thread)
            thread.start()
        return self

    def __exit__(self, *problem: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)

    def _run(self, number: int, rows: list[list[float]]) -> None:
        chance = random.Random(f"{workload.SEED}-{number}")
        names, weights = list(WAYS), [weight for _, weight in WAYS.values()]
        with httpx.Client(base_url=f"http://127.0.0.1:{self.server.port}", timeout=60, trust_env=False) as http:
            client = _Client(http, chance, self.texts, rows)
            while not self._stop.is_set():
                (name,) = chance.choices(names, weights)
                try:
                    WAYS[name][0](client)
                except (_Wrong, httpx.HTTPError, OSError, ValueError, LookupError) as error:
                    with self._lock:
                        self.failures.append(f"{name}: {type(error).__name__}: {error}"[:400])
                else:
                    with self._lock:
                        self.done[name] += 1


def figures(
    seconds: int,
    *,
    reload_every: float = 20,
    environment: Mapping[str, str] | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Runs the crowd against a server process of its own and watches that process's memory.

    Args:
        seconds: the whole run, warm-up included, which is a quarter of it and a minute at most.
        reload_every: seconds between two reloads of the text model; in the warm-up a tenth of that, as malloc's arenas grow
            with the first few dozens of reloads, for good.
        environment: further variables for the server.

    Raises:
        CourseError: the server ended, or did not take a reload.
    """
    warm_up = min(LONGEST_WARM_UP, seconds / 4)
    with tempfile.TemporaryDirectory(prefix="course-bench-") as held, ended_by_sigterm():
        folder = workload.repository(Path(held))
        shutil.copytree(workload.SERVER / "models" / "embedder", folder / "models" / "embedder")
        tutor = workload.newest(folder / "models" / "tutor")
        ours = contestants.ours(folder)
        contestant = replace(ours, environment={**ours.environment, **(environment or {})})
        with Running(contestant, "generate", {}, cpus()[0], folder) as server:
            sizes: list[tuple[float, float]] = []
            reloads, next_reload = 0, 0.0
            with _Crowd(server, workload.texts(tutor, workload.mixed_lengths)) as crowd:
                began = time.monotonic()
                # Ten sizes at least, however long a reload took: they are told by tenths.
                while (now := time.monotonic() - began) < seconds or sum(at >= warm_up for at, _ in sizes) < 10:
                    if now > next_reload:
                        _reload(server, tutor, reloads := reloads + 1)
                        next_reload = now + (reload_every if now > warm_up else reload_every / 10)
                    sizes.append((time.monotonic() - began, _resident_mb(server)))
                    if len(sizes) % 60 == 0:
                        say(f"{now:.0f} s, {sum(crowd.done.values()):,} requests, {sizes[-1][1]:.0f} MB")
                    time.sleep(min(1.0, seconds / 100))
            elapsed = time.monotonic() - began
            _require_rest(server)
            logged = server.output.read_text()
    bugs = [line for line in map(json.loads, logged.splitlines()) if line["level"] == "error"]
    steady = [(at, size) for at, size in sizes if at >= warm_up]
    window = max(1, len(steady) // 10)
    start = statistics.median(size for _, size in steady[:window])
    end = statistics.median(size for _, size in steady[-window:])
    slope = float(np.polyfit([at / 60 for at, _ in steady], [size for _, size in steady], 1)[0])
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": f"{cpu_name()}, {len(cpus()[0])} CPUs",
        "seconds": round(elapsed, 1),
        "warm_up_seconds": warm_up,
        "clients": CLIENTS,
        "requests": sum(crowd.done.values()),
        "requests_by_kind": dict(crowd.done.most_common()),
        "reloads": reloads,
        "failed": len(crowd.failures),
        "failures": crowd.failures[:10],
        "errors_logged": len(bugs),
        "rss_start_mb": round(start, 1),
        "rss_end_mb": round(end, 1),
        "rss_most_mb": round(max(size for _, size in steady), 1),
        "rss_slope_mb_per_minute": round(slope, 2),
        "rss_mb_by_tenth": [round(statistics.median(part), 1) for part in np.array_split([s for _, s in steady], 10)],
        "flat": end - start <= NOISE_MB,
    }


def markdown(found: Mapping[str, Any]) -> str:
    """The section of COMPARISONS.md."""
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in found["requests_by_kind"].items())
    return "\n".join(
        [
            f'`make bench ARGS="soak"`, {found["date"][:10]}, {found["machine"]}. {found["clients"]} clients for '
            f"{found['seconds']:.0f} s, without a pause: {kinds}; and {found['reloads']} reloads of the text model under way.",
            "",
            "| resident memory | MB |",
            "| --- | --- |",
            f"| after {found['warm_up_seconds']:.0f} s of warm-up | {found['rss_start_mb']:.0f} |",
            f"| at the end | {found['rss_end_mb']:.0f} |",
            f"| most | {found['rss_most_mb']:.0f} |",
            f"| slope, a minute | {found['rss_slope_mb_per_minute']:+.2f} |",
            "",
            f"Of {found['requests'] + found['failed']:,} requests {found['failed']} were not answered as they have to be. "
            "Start and end are medians over a tenth of the time. For a moment a reload holds two models, "
            "and the cache of prompts fills between two reloads and goes with its model: that is the spread.",
        ]
    )


def _resident_mb(server: Running) -> float:
    try:
        return float(psutil.Process(server.process.pid).memory_info().rss / 1e6)
    except psutil.NoSuchProcess:
        raise CourseError("the server ended under load", why=server.output.read_text()[-1500:]) from None


def _series(server: Running, pattern: str) -> list[float]:
    answer = httpx.get(f"http://127.0.0.1:{server.port}/metrics", timeout=60, trust_env=False)
    return [float(number) for number in re.findall(rf"^{pattern} (\S+)$", answer.text, re.M)]


def _reload(server: Running, tutor: Path, number: int) -> None:
    """The text model with one byte more in one of its files is another model: it is loaded beside the old one and takes its place."""
    config = tutor / "tokenizer_config.json"
    changed = json.loads(config.read_text()) | {"reload": number}
    (tutor / ".next").write_text(json.dumps(changed))
    (tutor / ".next").replace(config)
    server.process.send_signal(signal.SIGHUP)

    def loaded() -> None:
        if sum(_series(server, r'inference_model_loads_total\{model="tutor",.*\}')) <= number:
            raise waits.NotYet("the old model answers")

    waits.until(loaded, what="the server to take the changed model", timeout=60)


def _require_rest(server: Running) -> None:
    """Nobody is left in it: every slot is free."""

    def at_rest() -> None:
        left = sum(_series(server, r"inference_(?:running|waiting)_requests\{.*\}"))
        if left:
            raise waits.NotYet(f"{left:.0f} requests run or wait")

    waits.until(at_rest, what="the server to come to rest", timeout=30)
