"""What the RAG service behind the front door takes for an answer, stage by stage, and how good its answers are."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from course_lib.bench.samples import Samples, quantiles_ms
from course_lib.errors import CourseError
from course_lib.settings import CHECKOUT
from course_lib.stacks import Stack, built_images

QUESTIONS = CHECKOUT / "docker" / "rag-service" / "evaluation" / "questions.yaml"
GLOSSARY = CHECKOUT / "docs" / "glossary"
STAGES = ("embed", "search", "generate")
_CACHE = Path(__file__).parent / "compose.cache.yaml"


@dataclass(frozen=True)
class Asked:
    """One question: seconds until its answer was here, seconds of each stage as the service says, and whether from the cache."""

    seconds: float
    stages: dict[str, float]
    cached: bool
    refused: int
    """How often the front door had said 429 before: one address may ask 200 times a second."""


def questions() -> list[str]:
    """The committed questions, those beside the documents included."""
    return [each["question"] for group in yaml.safe_load(QUESTIONS.read_text()).values() for each in group]


def ingest(stack: Stack) -> dict[str, float]:
    """Stores docs/glossary, and the course's pages that the questions ask about; returns how much it was, and the seconds."""
    asked = {each.get("source") for group in yaml.safe_load(QUESTIONS.read_text()).values() for each in group} - {None}
    files = sorted({*GLOSSARY.glob("*.md"), *(CHECKOUT / source for source in asked)})
    began = time.monotonic()
    passages = stack.rag.put_files(files)
    seconds = time.monotonic() - began
    return {"documents": len(passages), "passages": sum(passages.values()), "seconds": round(seconds, 2)}


def closed_loop(stack: Stack, texts: Sequence[str], clients: int, requests: int) -> list[Asked]:
    """Asks `requests` questions in turn from several clients, each with a connection of its own and waiting for its answer.

    Raises:
        CourseError: one was not answered.
    """

    def one_client(number: int) -> list[Asked]:
        found = []
        with stack.http() as http:
            http.get("/healthz")  # connected, and TLS agreed on, before the clock runs
            for at in range(number, requests, clients):
                refused = 0
                while True:
                    began = time.perf_counter()
                    answer = http.post("/rag/answer", json={"question": texts[at % len(texts)]})
                    seconds = time.perf_counter() - began
                    if answer.status_code != 429:
                        break
                    refused += 1
                    time.sleep(0.05)
                if answer.status_code != 200:
                    raise CourseError(f"/rag/answer answered {answer.status_code}", why=answer.text[:300])
                body = answer.json()
                found.append(Asked(seconds, body["seconds"], bool(body["cached"]), refused))
        return found

    with ThreadPoolExecutor(clients) as pool:
        return [asked for part in pool.map(one_client, range(clients)) for asked in part]


def latencies(stack: Stack, rounds: int, requests: int) -> dict[str, Any]:
    """p50, p95 and p99 in milliseconds for 1 and for 8 clients: of the whole answer as a client sees it, and of each stage."""
    texts = questions()
    closed_loop(stack, texts, 2, min(40, requests))  # warm-up
    samples = {clients: Samples() for clients in (1, 8)}
    hits = refused = asked = 0
    for number in range(rounds):
        for clients in (1, 8) if number % 2 == 0 else (8, 1):
            began = time.monotonic()
            found = closed_loop(stack, texts, clients, requests)
            samples[clients].add("per_s", len(found) / (time.monotonic() - began))
            times = {"answer": [one.seconds for one in found]}
            times |= {stage: [one.stages[stage] for one in found] for stage in STAGES}
            for name, seconds in times.items():
                for quantile, value in quantiles_ms(seconds).items():
                    samples[clients].add(f"{name}_{quantile}", value)
            hits += sum(one.cached for one in found)
            refused += sum(one.refused for one in found)
            asked += len(found)
    return {
        "clients": {str(clients): each.medians(2) for clients, each in samples.items()},
        "samples": {str(clients): each.as_json(2) for clients, each in samples.items()},
        "requests_a_round": requests,
        "rounds": rounds,
        "from_cache": round(hits / asked, 3),
        "refused": refused,
    }


def cached(stack: Stack, rounds: int, requests: int) -> dict[str, Any]:
    """The same with Redis in front: every question is asked once before, so that the answers come from there."""
    project = stack.project
    with_cache = Stack(replace(project, files=(*project.files, _CACHE)))
    with_cache.project.prepare()
    built_images.ensure(with_cache.project, "cache-image")
    with_cache.up()
    try:
        texts = questions()
        first = closed_loop(with_cache, texts, 1, len(texts))
        found = latencies(with_cache, rounds, requests)
        if not found["from_cache"]:
            raise CourseError("no answer came from the cache", why=with_cache.logs("rag"))
        return {**found, "miss_p50_ms": round(quantiles_ms([one.seconds for one in first])["p50_ms"], 2)}
    finally:
        with_cache.project.run("rm", "--stop", "--force", "cache", check=False)
        stack.up()


def quality(stack: Stack) -> dict[str, Any]:
    """recall@1, recall@3 and the share of right answers by group of questions, and the seconds of the stages; asked by the
    service's own `evaluate`, inside its container."""
    program = ("python3", "-m", "rag_service", "evaluate", "/dev/stdin", "--json")
    said = stack.project.run("exec", "--no-TTY", "rag", *program, show=False, timeout=300, input=QUESTIONS.read_text())
    return dict(json.loads(said.stdout))
