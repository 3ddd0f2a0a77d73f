"""How good the answers are: questions with a known passage, asked of a running service.

recall@k is the share of questions for which a passage among the first k is from the right document and holds the phrase; right is the
share of answers that hold it. Questions without a source are about something else: there ``none`` is the right answer.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import yaml

from rag_service.errors import StartError
from rag_service.ingest import message

TIMEOUT_SECONDS = 120.0
K = 3
STAGES = ("embed", "search", "generate", "total")


@dataclass(frozen=True, slots=True)
class Question:
    """``phrase`` stands in the document ``source``, spaces and line breaks aside; both are empty for a question beside the documents."""

    group: str
    question: str
    source: str = ""
    phrase: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came: the rank of the right passage from 1 (0: not among the first), and the body of the answer."""

    question: Question
    rank: int
    answer: dict[str, Any]

    @property
    def right(self) -> bool:
        """Whether the answer holds the phrase; of a question beside the documents, whether there was none."""
        if not self.question.source:
            return bool(self.answer["answered_by"] == "none")
        return plain(self.question.phrase) in plain(self.answer["answer"])


def read_questions(file: Path) -> list[Question]:
    """A question file. Raises StartError."""
    try:
        groups = yaml.safe_load(file.read_text(encoding="utf-8"))
        return [Question(group, **each) for group, questions in groups.items() for each in questions]
    except OSError as error:
        raise StartError(f"{file} can't be read ({error.strerror}): give a file of questions.") from None
    except (yaml.YAMLError, UnicodeDecodeError, AttributeError, TypeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise StartError(f"{file} is no file of questions ({reason}): see evaluation/questions.yaml.") from None


def evaluate(file: Path, url: str, as_json: bool, misses: bool) -> str:
    """Ask all questions; return the figures as a table or as JSON, and with ``misses`` what went wrong. Raises StartError."""
    questions = read_questions(file)
    outcomes = []
    with httpx2.Client(base_url=url, timeout=TIMEOUT_SECONDS, trust_env=False) as client:
        for question in questions:
            passages = _post(client, "/search", question.question)["passages"]
            hits = (at for at, passage in enumerate(passages, 1) if _holds(passage, question))
            outcomes.append(Outcome(question, next(hits, 0), _post(client, "/answer", question.question)))
    groups = list(dict.fromkeys(question.group for question in questions))
    figures = {group: _figures([each for each in outcomes if each.question.group == group]) for group in groups}
    parts = [json.dumps(figures, indent=1) if as_json else _table(figures)]
    if misses:
        parts += [_miss(each) for each in outcomes if not each.right or each.rank == 0 < len(each.question.source)]
    return "\n".join(parts)


def plain(text: str) -> str:
    """For comparing: one case, single spaces."""
    return " ".join(text.casefold().split())


def _holds(passage: dict[str, Any], question: Question) -> bool:
    return passage["source"] == question.source and plain(question.phrase) in plain(passage["text"])


def _post(client: httpx2.Client, path: str, question: str) -> dict[str, Any]:
    try:
        reply = client.post(path, json={"question": question, "k": K})
    except httpx2.HTTPError as error:
        raise StartError(
            f"{client.base_url} gives no answer ({type(error).__name__}): start the service, or set --url."
        ) from None
    if reply.status_code != 200:
        raise StartError(f"{path} failed: {message(reply)}")
    found: dict[str, Any] = reply.json()
    return found


def _figures(outcomes: list[Outcome]) -> dict[str, float]:
    """Shares from 0 to 1 and seconds; recall only where there is something to find."""
    count = len(outcomes)
    inside = [each for each in outcomes if each.question.source]
    figures: dict[str, float] = {"questions": count}
    if inside:
        figures["recall@1"] = sum(each.rank == 1 for each in inside) / len(inside)
        figures[f"recall@{K}"] = sum(each.rank > 0 for each in inside) / len(inside)
    figures["right"] = sum(each.right for each in outcomes) / count
    for who in ("model", "quote", "none"):
        figures[f"by {who}"] = sum(each.answer["answered_by"] == who for each in outcomes) / count
    for stage in STAGES:
        seconds = sorted(each.answer["seconds"][stage] for each in outcomes)
        figures |= {f"{stage} p50 s": _quantile(seconds, 0.5), f"{stage} p95 s": _quantile(seconds, 0.95)}
    return figures


def _quantile(values: list[float], share: float) -> float:
    """The nearest rank: a value that was measured."""
    return values[max(0, math.ceil(share * len(values)) - 1)]


def _table(figures: dict[str, dict[str, float]]) -> str:
    names = list(dict.fromkeys(name for each in figures.values() for name in each))
    rows = [f"| | {' | '.join(figures)} |", f"|---|{'---|' * len(figures)}"]
    for name in names:
        cells = (each.get(name) for each in figures.values())
        rows.append(f"| {name} | {' | '.join('' if cell is None else f'{cell:.3g}' for cell in cells)} |")
    return "\n".join(rows)


def _miss(outcome: Outcome) -> str:
    asked = outcome.question
    return (
        f"- {asked.question} ({asked.source or 'nowhere'}: {asked.phrase!r}, rank {outcome.rank})\n"
        f"  {outcome.answer['answered_by']}: {' '.join(outcome.answer['answer'].split())[:300]}"
    )
