"""The slot loop without HTTP, in one process: what our server could reach at best. Run by its path, with the server's package at hand.

`python bare_engine.py REPOSITORY BODIES FIRST IN_FLIGHT WARM_UP SECONDS THREADS` reads OpenAI chat requests, a line each, and serves
them from a queue: chat template, tokenizer, prefill, tokens, text. Prints one line of JSON. It is the program that the others are
measured by, so it has nothing that a request does not need.
"""

from __future__ import annotations

import itertools
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from inference_server.engines.chat import ChatTokenizer
from inference_server.engines.onnx_slots import OnnxSlots
from inference_server.models import find_models

LONGEST = 512
DECODE_STEPS = 200


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


def serve(
    model: OnnxSlots, tokenizer: ChatTokenizer, queue: Iterator[Any], slots: int, seconds: float
) -> dict[str, Any]:
    """Keeps ``slots`` requests in flight until the time is up. As with wrk, those that have ended by then count."""
    running: list[Request] = []
    whole, firsts, tokens = [], [], 0
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
    return {
        "seconds": seconds,
        "requests": len(whole),
        "tokens": tokens,
        "failed": 0,
        "p50_ms": float(np.quantile(whole or [np.nan], 0.5)),
        "p99_ms": float(np.quantile(whole or [np.nan], 0.99)),
        "ttft_p99_ms": float(np.quantile(firsts or [np.nan], 0.99)),
    }


def decode_only(model: OnnxSlots, slots: int) -> float:
    """Tokens a second of full slots that take steps and do nothing else."""
    for slot in range(slots):
        model.prefill(slot, list(range(3, 35)))
    tokens = [5] * slots
    for _ in range(5):
        model.step(tokens)
    started = time.perf_counter()
    for _ in range(DECODE_STEPS):
        tokens = model.step(tokens).argmax(-1).tolist()
    return DECODE_STEPS * slots / (time.perf_counter() - started)


def main() -> None:
    repository, file, first, slots, warm_up, seconds, threads = sys.argv[1:]
    spec = next(spec for spec in find_models(Path(repository), "onnx") if spec.kind == "generate")
    bodies = [json.loads(line) for line in Path(file).read_text(encoding="utf-8").splitlines()]
    model = OnnxSlots(spec, int(slots), int(threads), LONGEST)
    tokenizer = ChatTokenizer(spec.folder)
    queue = itertools.islice(itertools.cycle(bodies), int(first) % len(bodies), None)
    serve(model, tokenizer, queue, int(slots), float(warm_up))
    found = serve(model, tokenizer, queue, int(slots), float(seconds))
    found["decode_only_tokens_per_s"] = decode_only(model, int(slots))
    print("RESULT", json.dumps(found))


if __name__ == "__main__":
    main()
