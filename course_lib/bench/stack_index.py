"""What the settings of Chroma's index (HNSW) are worth: time of a search against what it finds."""

from __future__ import annotations

import ast
import itertools
import statistics
import sysconfig
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray

from course_lib.bench import stack_rag
from course_lib.bench.samples import quantiles_ms
from course_lib.errors import CourseError
from course_lib.stacks import Stack

Vectors = NDArray[np.float32]
QUERIES = 200
NEAREST = 10
_OVERRIDE = Path(__file__).parent / "compose.index.yaml"
_DATABASE = "/api/v2/tenants/default_tenant/databases/default_database"
_AT_ONCE = 256


@dataclass(frozen=True)
class Index:
    """HNSW's settings: links of a vector, candidates looked at while it is built, and in a search."""

    max_neighbors: int = 16
    ef_construction: int = 100
    ef_search: int = 100

    def as_json(self) -> dict[str, int]:
        return {name: getattr(self, name) for name in ("max_neighbors", "ef_construction", "ef_search")}


#: The first is what the RAG service asks for.
VARIANTS = (Index(), Index(ef_search=10), Index(ef_search=400), Index(max_neighbors=4), Index(48, 200))
ON_DOCUMENTS = (Index(4, 100, 10), Index(48, 200, 400))


def on_documents(stack: Stack, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """The course's documents in collections with other indexes, asked by the same questions; the stack is as before afterwards."""
    found = []
    try:
        for number, index in enumerate(ON_DOCUMENTS):
            say(f"index: the course's documents with {index}")
            variables = {f"HNSW_{name.upper()}": str(value) for name, value in index.as_json().items()}
            variables = {**stack.project.variables, **variables, "COLLECTION": f"bench-{number}"}
            other = Stack(replace(stack.project, files=(*stack.project.files, _OVERRIDE), variables=variables))
            other.up()
            stack_rag.ingest(other)
            found.append({**index.as_json(), "quality": stack_rag.quality(other)})
    finally:
        stack.up()
    return found


def on_many(stack: Stack, count: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Vectors of `count` texts, put into Chroma with several indexes; each is asked for the 10 nearest of 200 other texts.

    recall@10 is the share of the 10 truly nearest, which comparing with every vector finds. Times are milliseconds of a
    query over Chroma's HTTP API with one client, in the second of two passes.

    Raises:
        CourseError: Chroma or the embedder did not answer, or Python's library has too few texts.
    """
    say(f"index: {count} vectors of paragraphs in Python's documentation strings")
    texts = list(itertools.islice(paragraphs(), count + QUERIES))
    if len(texts) < count + QUERIES:
        raise CourseError(f"Python's library has only {len(texts)} paragraphs here", do="Ask for fewer vectors.")
    vectors = _embed(stack, texts)
    stored, asked = vectors[:count], vectors[count:]
    nearest, exact_s = exact(stored, asked)
    url = f"http://127.0.0.1:{stack.port('database-door', 8000)}{_DATABASE}"
    rows = []
    with httpx.Client(base_url=url, timeout=120, trust_env=False) as chroma:
        for index in VARIANTS:
            say(f"index: {count} vectors with {index}")
            rows.append({**index.as_json(), **_measure(chroma, index, stored, asked, nearest)})
    return {
        "vectors": count,
        "dimensions": int(vectors.shape[1]),
        "queries": QUERIES,
        "exact_p50_ms": round(statistics.median(exact_s) * 1000, 2),
        "variants": rows,
    }


def paragraphs() -> Iterator[str]:
    """Paragraphs of the documentation strings of Python's own library, none twice: many texts that are on every machine."""
    seen: set[str] = set()
    root = Path(sysconfig.get_paths()["stdlib"])
    for file in sorted(root.rglob("*.py")):
        if {"site-packages", "test", "tests"} & set(file.parts):
            continue
        try:
            tree = ast.parse(file.read_text(errors="replace"))
        except (SyntaxError, ValueError):  # some are there to be wrong
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                for paragraph in (ast.get_docstring(node) or "").split("\n\n"):
                    text = " ".join(paragraph.split())[:300]
                    if len(text) > 40 and text not in seen:
                        seen.add(text)
                        yield text


def exact(stored: Vectors, asked: Vectors) -> tuple[list[set[int]], list[float]]:
    """The rows nearest to each question by comparing with all of them (vectors of length 1), and each search's seconds."""
    nearest, seconds = [], []
    for vector in asked:
        began = time.perf_counter()
        best = np.argpartition(stored @ vector, -NEAREST)[-NEAREST:]
        seconds.append(time.perf_counter() - began)
        nearest.append({int(row) for row in best})
    return nearest, seconds


def _embed(stack: Stack, texts: list[str]) -> Vectors:
    found: list[list[float]] = []
    with stack.http() as http:
        for at in range(0, len(texts), _AT_ONCE):
            answer = http.post("/v1/embeddings", json={"model": "embedder", "input": texts[at : at + _AT_ONCE]})
            if answer.status_code != 200:
                raise CourseError(f"/v1/embeddings answered {answer.status_code}", why=answer.text[:300])
            found += [each["embedding"] for each in answer.json()["data"]]
    return np.array(found, dtype=np.float32)


def _measure(
    chroma: httpx.Client, index: Index, stored: Vectors, asked: Vectors, nearest: list[set[int]]
) -> dict[str, float]:
    def ask(path: str, body: dict[str, Any]) -> Any:
        answer = chroma.post(path, json=body)
        if answer.is_error:
            raise CourseError(f"Chroma answered {answer.status_code}", why=answer.text[:300])
        return answer.json()

    hnsw = {"space": "cosine", **index.as_json()}
    made = ask("/collections", {"name": "bench-many", "configuration": {"hnsw": hnsw}})
    try:
        began = time.monotonic()
        for at in range(0, len(stored), _AT_ONCE):
            part = stored[at : at + _AT_ONCE]
            ids = [str(row) for row in range(at, at + len(part))]
            ask(f"/collections/{made['id']}/upsert", {"ids": ids, "embeddings": part.tolist()})
        build_s = time.monotonic() - began
        for _ in range(2):  # the first pass reads the index in
            seconds, hits = [], 0
            for vector, best in zip(asked.tolist(), nearest, strict=True):
                body = {"query_embeddings": [vector], "n_results": NEAREST, "include": ["distances"]}
                began = time.perf_counter()
                found = ask(f"/collections/{made['id']}/query", body)
                seconds.append(time.perf_counter() - began)
                hits += len(best & {int(row) for row in found["ids"][0]})
    finally:
        chroma.delete("/collections/bench-many")
    times = {name: round(value, 2) for name, value in quantiles_ms(seconds).items()}
    return {"recall": round(hits / (NEAREST * len(asked)), 4), **times, "build_s": round(build_s, 1)}
