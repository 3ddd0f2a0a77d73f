"""Asking a running inference server: predictions that are compared with known labels, and a chat."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from course_lib.errors import CourseError
from course_lib.images.course_image import SERVER
from course_lib.lab.steps import record

SAMPLES = SERVER / "models" / "digits" / "samples.json"


@dataclass(frozen=True)
class Sample:
    """A hand-written digit of the held-out set."""

    pixels: tuple[float, ...]
    """64 grey values from 0 to 16, row by row."""
    label: str


def samples(count: int = 20) -> list[Sample]:
    """Labelled digits that no version of the classifier was trained on."""
    rows = json.loads(SAMPLES.read_text())
    return [Sample(tuple(row["pixels"]), str(row["label"])) for row in rows[:count]]


@dataclass(frozen=True)
class Asked:
    """How many of a set of labelled samples came back right, and by which version."""

    right: int
    total: int
    version: str


class InferenceServer:
    """A client for the server at an address."""

    def __init__(self, url: str, *, timeout: float = 30) -> None:
        self.url = url
        self._http = httpx.Client(base_url=url, timeout=timeout, trust_env=False)  # no proxy on the way to 127.0.0.1

    def get(self, path: str) -> httpx.Response:
        return self._http.get(path)

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Posts JSON and returns the answer's JSON.

        Raises:
            CourseError: the server did not answer, or answered with an error; quotes it.
        """
        try:
            answer = self._http.post(path, json=body)
        except httpx.HTTPError as error:
            raise CourseError(
                f"{self.url}{path} did not answer", why=str(error), do="Is the container running? `docker ps` tells."
            ) from None
        if answer.status_code >= 400:
            raise CourseError(
                f"{path} answered {answer.status_code}",
                why=answer.text[:500],
                do="The server's sentence above says what it wants.",
            )
        return dict(answer.json())

    def predict(self, pixels: Sequence[float], **which: str) -> dict[str, Any]:
        """The class of one digit: predicted class, confidence, model, version, prediction id, inference time."""
        return self.post("/predict", {"inputs": list(pixels), "model": "digits", **which})

    def digit_request(self, sample: Sample) -> dict[str, Any]:
        """The body of a /predict request for a sample."""
        return {"inputs": list(sample.pixels), "model": "digits"}

    def require_right(self, wanted: Sequence[Sample], *, at_least: float = 0.9) -> Asked:
        """Asks for each sample and compares with its label.

        Raises:
            CourseError: fewer than this share came back right.
        """
        answers = [self.predict(sample.pixels) for sample in wanted]
        found = [str(a["predicted_class"]) for a in answers]
        asked = Asked(
            sum(f == s.label for f, s in zip(found, wanted, strict=True)), len(wanted), str(answers[0]["version"])
        )
        if asked.right < at_least * asked.total:
            raise CourseError(
                f"the server got {asked.right} of {asked.total} digits right, and {at_least:.0%} were expected",
                why=f"It answered {found} to {[s.label for s in wanted]}.",
                do="Is this the right image, and are its models whole?",
            )
        record(
            "server.predictions",
            "http",
            self.url,
            right=asked.right,
            of=asked.total,
            model=answers[0]["model"],
            version=asked.version,
        )
        return asked

    def chat(self, question: str, *, about: str, system: str | None = None) -> str:
        """Asks the tutor one question.

        Args:
            about: a word that any right answer contains; an answer without it is not one.

        Raises:
            CourseError: the answer lacks that word.
        """
        messages = ([{"role": "system", "content": system}] if system else []) + [{"role": "user", "content": question}]
        answer = self.post("/v1/chat/completions", {"model": "tutor", "messages": messages, "temperature": 0})
        text = str(answer["choices"][0]["message"]["content"])
        if about.lower() not in text.lower():
            raise CourseError(
                f"the tutor's answer does not speak of {about!r}",
                why=f"{question}\n{text}",
                do="Is this the right image, and are its models whole?",
            )
        record("server.chat", "http", self.url, question=question, answer=text, model=answer["model"])
        return text
