"""The slot loop without HTTP, in one process: what our server could reach at best. Run by its path, with the server's package at hand.

`python bare_engine.py REPOSITORY BODIES FIRST IN_FLIGHT WARM_UP SECONDS INSTANCES` reads OpenAI chat requests, a line each, and
serves them from a queue: chat template, tokenizer, prefill, tokens, text. INSTANCES is `2x1` for two models side by side, each on a
thread of its own and computing with one, or `1x2` for one that computes with two. Prints one line of JSON. It is the program that the others are
measured by, so it has nothing that a request does not need.
"""

from __future__ import annotations

import itertools
import json
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from inference_server.engines.chat import ChatTokenizer
from inference_server.engines.onnx_slots import OnnxSlots
from inference_server.models import find_models

LONGEST = 512
DECODE_STEPS = 200


class Shared(Iterator[Any]):
    """An iterator that several threads draw from."""

    def __init__(self, items: Iterator[Any]) -> None:
        self._items, self._lock = items, threading.Lock()

    def __next__(self) -> Any:
        with self._lock:
            return next(self._items)


class Request:
    """One under way."""

    def __init__(self, wanted: int, started: float, words: Any) -> None:
        self.left, self.wanted, self.started, self.words = wanted, wanted, started, words
        self.token, self.text, self.first = 0, "", 0.0

    def take(self, token: int) -> bool:
        """Count a token in; whether that was the last."""
        self.token = token
        self.text += self.words.feed(token)
        self.left -= 1
        return self.left == 0


Part = tuple[list[float], list[float], int]
"""Milliseconds of whole answers, those to first tokens, and tokens."""


def serve(model: OnnxSlots, tokenizer: ChatTokenizer, queue: Iterator[Any], slots: int, seconds: float) -> Part:
    """Keeps ``slots`` requests in flight until the time is up. As with wrk, those that have ended by then count."""
    running: list[Request] = []
    whole: list[float] = []
    firsts: list[float] = []
    tokens = 0
    end = time.perf_counter() + seconds

    def finish(request: Request) -> int:
        at = time.perf_counter()
        if at >= end:
            return 0
        whole.append((at - request.started) * 1e3)
        firsts.append((request.first - request.started) * 1e3)
        return request.wanted

    while time.perf_counter() < end:
        while len(running) < slots:
            body = next(queue)
            request = Request(body["max_tokens"], time.perf_counter(), tokenizer.words())
            logits = model.prefill(len(running), tokenizer.encode(body["messages"]))
            last = request.take(int(logits.argmax()))
            request.first = time.perf_counter()
            if last:
                tokens += finish(request)
            else:
                running.append(request)
        best = model.step([request.token for request in running]).argmax(-1).tolist()
        for slot in reversed(range(len(running))):
            if running[slot].take(best[slot]):
                tokens += finish(running[slot])
                top = len(running) - 1
                if slot != top:
                    model.move(top, slot)
                    running[slot] = running[top]
                running.pop()
    return whole, firsts, tokens


def together(
    models: list[OnnxSlots], tokenizer: ChatTokenizer, queue: Iterator[Any], slots: list[int], seconds: float
) -> dict[str, Any]:
    """``serve`` on each model at once, from one queue."""
    parts: list[Part] = []
    threads = [
        threading.Thread(target=lambda pair=pair: parts.append(serve(pair[0], tokenizer, queue, pair[1], seconds)))
        for pair in zip(models, slots, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    whole = [ms for part in parts for ms in part[0]]
    firsts = [ms for part in parts for ms in part[1]]
    return {
        "seconds": seconds,
        "requests": len(whole),
        "tokens": sum(part[2] for part in parts),
        "failed": 0,
        "p50_ms": float(np.quantile(whole or [np.nan], 0.5)),
        "p99_ms": float(np.quantile(whole or [np.nan], 0.99)),
        "ttft_p99_ms": float(np.quantile(firsts or [np.nan], 0.99)),
    }


def decode_only(models: list[OnnxSlots], slots: list[int]) -> float:
    """Tokens a second of full slots that take steps and do nothing else."""

    def steps(model: OnnxSlots, count: int) -> None:
        tokens = [5] * count
        for _ in range(DECODE_STEPS):
            tokens = model.step(tokens).argmax(-1).tolist()

    for model, count in zip(models, slots, strict=True):
        for slot in range(count):
            model.prefill(slot, list(range(3, 35)))
    started = time.perf_counter()
    with ThreadPoolExecutor(len(models)) as threads:
        list(threads.map(steps, models, slots))
    return DECODE_STEPS * sum(slots) / (time.perf_counter() - started)


def main() -> None:
    repository, file, first, in_flight, warm_up, seconds, shape = sys.argv[1:]
    instances, threads = map(int, shape.split("x"))
    spec = next(spec for spec in find_models(Path(repository), "onnx") if spec.kind == "generate")
    bodies = [json.loads(line) for line in Path(file).read_text(encoding="utf-8").splitlines()]
    instances = min(instances, int(in_flight))
    slots = [int(in_flight) // instances] * instances
    models = [OnnxSlots(spec, each, threads, LONGEST) for each in slots]
    tokenizer = ChatTokenizer(spec.folder)
    queue = Shared(itertools.islice(itertools.cycle(bodies), int(first) % len(bodies), None))
    together(models, tokenizer, queue, slots, float(warm_up))
    found = together(models, tokenizer, queue, slots, float(seconds))
    found["decode_only_tokens_per_s"] = decode_only(models, slots)
    print("RESULT", json.dumps(found))


if __name__ == "__main__":
    main()
