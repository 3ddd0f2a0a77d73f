"""A client for the stack's RAG service: documents in, answers with their sources out."""

from __future__ import annotations

import html
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from course_lib.errors import CourseError
from course_lib.lab import display
from course_lib.lab.steps import record
from course_lib.settings import CHECKOUT


@dataclass(frozen=True)
class Passage:
    """A piece of a document that was found for a question."""

    source: str
    heading: str
    text: str
    score: float


@dataclass(frozen=True)
class Answer:
    """What the service answered, and what it rests on."""

    question: str
    text: str
    answered_by: str
    """`model`: the model's own words; `quote`: a sentence of a passage, because the model's were not found in any."""
    grounded: bool
    sources: tuple[Passage, ...]
    cached: bool
    seconds: dict[str, float]
    """Seconds by stage: embed, search, generate, total."""
    trace: str
    """The id of its trace; empty where none was kept."""

    def show(self) -> None:
        """Shows the answer, and its sources as a table."""
        display.show(f"<b>{html.escape(self.text)}</b>", self.text)
        rows = [
            {"source": p.source, "heading": p.heading, "score": f"{p.score:.2f}", "passage": _short(p.text)}
            for p in self.sources
        ]
        display.table(rows, caption=f"answered by {self.answered_by}, from")


class Rag:
    """A RAG service at an address.

    Args:
        prefix: what stands before its paths; behind the course's front door /rag.
    """

    def __init__(self, http: httpx.Client, *, prefix: str = "/rag") -> None:
        self._http = http
        self._prefix = prefix

    def put(self, source: str, text: str) -> int:
        """Stores a document, in place of an earlier one of the same name; returns how many passages it was cut into.

        Raises:
            CourseError: the service refused it.
        """
        return int(self._ask("POST", "/documents", json={"source": source, "text": text})["chunks"])

    def put_files(self, files: Iterable[Path]) -> dict[str, int]:
        """Stores files of the checkout by their paths; returns each one's passages."""
        return {(name := str(file.resolve().relative_to(CHECKOUT))): self.put(name, file.read_text()) for file in files}

    def documents(self) -> dict[str, int]:
        """The stored documents, with how many passages each one has."""
        found = {one["source"]: int(one["chunks"]) for one in self._ask("GET", "/documents")}
        record("rag.documents", "http", self.url, documents=len(found), passages=sum(found.values()))
        return found

    def delete(self, source: str) -> None:
        """Removes a document.

        Raises:
            CourseError: there is none of that name.
        """
        self._ask("DELETE", f"/documents/{source}")

    def search(self, question: str, *, k: int = 3) -> list[Passage]:
        """The k passages nearest to a question, best first."""
        found = self._ask("POST", "/search", json={"question": question, "k": k})
        return [_passage(one) for one in found["passages"]]

    def answer(self, question: str, *, k: int = 3) -> Answer:
        """Answers a question from the stored documents.

        Raises:
            CourseError: nothing is stored yet, or a part of the stack is down; the service's own words say which.
        """
        response = self._send("POST", "/answer", json={"question": question, "k": k})
        found = response.json()
        return Answer(
            question=question,
            text=found["answer"],
            answered_by=found["answered_by"],
            grounded=bool(found["grounded"]),
            sources=tuple(_passage(one) for one in found["sources"]),
            cached=bool(found["cached"]),
            seconds={key: float(value) for key, value in found["seconds"].items()},
            trace=_trace_id(response.headers.get("traceparent", "")),
        )

    @property
    def url(self) -> str:
        return str(self._http.base_url)

    def _ask(self, method: str, path: str, **what: Any) -> Any:
        return self._send(method, path, **what).json()

    def _send(self, method: str, path: str, **what: Any) -> httpx.Response:
        try:
            response = self._http.request(method, self._prefix + path, **what)
        except httpx.HTTPError as error:
            raise CourseError(
                f"the stack's front door did not answer {path}",
                why=str(error) or type(error).__name__,
                do="Is the proxy running? `stack.show()` tells.",
            ) from None
        if response.status_code >= 400:
            raise CourseError(f"{path} answered {response.status_code}", why=_message(response))
        return response


def _message(response: httpx.Response) -> str:
    """The sentence in an error's body, or the body's beginning where a proxy wrote it."""
    try:
        return str(response.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return response.text[:300]


def _passage(one: dict[str, Any]) -> Passage:
    return Passage(one["source"], one.get("heading", ""), one["text"], float(one["score"]))


def _trace_id(header: str) -> str:
    parts = header.split("-")
    return parts[1] if len(parts) == 4 else ""


def _short(text: str, width: int = 100) -> str:
    line = " ".join(text.split())
    return line if len(line) <= width else line[: width - 1] + "…"
