"""Answers from passages: only what stands in one (extractive), or what a model says about them (generative).

The course's embedded model reads badly, and a larger one may invent. So in extractive mode its answer stands only where a passage
has it; else the sentences nearest to the question are quoted. A real model earns generative mode.
"""

import re
from dataclasses import dataclass
from typing import Literal

from rag_service.errors import Refused, RequestError
from rag_service.inference import Inference, Vector
from rag_service.search import Found, Passage
from rag_service.settings import Settings

NOTHING = "The documents say nothing about this."
SENTENCE = re.compile(r"\S.*?(?:[.!?][\"')\]*`]*(?=\s)|(?=\n\s*\n)|(?=\n\s*(?:[-*|>+]|\d+\.) )|\Z)", re.DOTALL)
CITED = re.compile(r"\[(\d{1,2})\]")
LEAST_WORDS, LEAST_CHARACTERS = 4, 20  # shorter answers stand in too many passages by chance
QUOTE_CHARACTERS = 300
MOST_SENTENCES = 64  # of a passage that are looked at
GENERATIVE = (
    "Answer the question from these numbered passages only, in a few sentences. After each statement write the number of its passage "
    "in brackets, as [1]. If the passages do not have the answer, say so.\n\n"
)
Who = Literal["model", "quote", "none"]


@dataclass(frozen=True, slots=True)
class Answer:
    """``grounded``: it stands in a passage, or cites one; ``sources`` are the passages, those that were used first."""

    text: str
    answered_by: Who
    grounded: bool
    sources: list[Passage]


class Answering:
    """Makes answers by the mode of the settings."""

    def __init__(self, settings: Settings, inference: Inference) -> None:
        self._settings = settings
        self._inference = inference

    async def answer(self, question: str, found: Found) -> Answer:
        """The answer to a question from the passages found for it. Raises DependencyDown, RequestError."""
        passages = found.passages
        if not passages or found.nearest < self._settings.least_similarity:
            return Answer(NOTHING, "none", False, [])
        if self._settings.answer_mode == "generative":
            return await self._generate(question, passages)
        said = await self._extract(question, passages)
        # In the best passage, not in any: what the course's model takes from another one is mostly beside the question.
        if stands_in(said, passages[0].text):
            return Answer(said, "model", True, passages)
        return Answer(await self._quote(found.vector, passages[0].text), "quote", True, passages)

    async def _extract(self, question: str, passages: list[Passage]) -> str:
        """What the model reads in them; nothing where it refuses the prompt."""
        text = " ".join(_within(passages, self._settings.prompt_characters))
        system = {"role": "system", "content": f"Answer from this passage:\n{text}"}
        try:
            return await self._inference.chat([system, {"role": "user", "content": question}])
        except Refused:
            return ""

    async def _quote(self, question: Vector, passage: str) -> str:
        """The sentence nearest to the question and as many around it as are short enough together, as the passage has them."""
        spans = sentences(passage)[:MOST_SENTENCES]
        first, last = 0, len(spans) - 1
        if spans[last][1] - spans[first][0] > QUOTE_CHARACTERS:
            vectors = await self._inference.embed([passage[start:end] for start, end in spans])
            near = [sum(a * b for a, b in zip(question, vector, strict=True)) for vector in vectors]
            first = last = near.index(max(near))
            while last + 1 < len(spans) and spans[last + 1][1] - spans[first][0] <= QUOTE_CHARACTERS:
                last += 1
            while first and spans[last][1] - spans[first - 1][0] <= QUOTE_CHARACTERS:
                first -= 1
        return passage[spans[first][0] : spans[last][1]]

    async def _generate(self, question: str, passages: list[Passage]) -> Answer:
        given = _within(passages, self._settings.prompt_characters)
        text = "\n\n".join(f"[{number}] {each}" for number, each in enumerate(given, 1))
        messages = [{"role": "system", "content": GENERATIVE + text}, {"role": "user", "content": question}]
        try:
            said = await self._inference.chat(messages)
        except Refused as refused:
            raise RequestError(
                502, f"{refused}. Lower PROMPT_CHARACTERS, TOP_K or ANSWER_TOKENS.", "inference_refuses"
            ) from None
        if not said:
            raise RequestError(502, "The model answered with nothing: look at CHAT_MODEL.", "empty_answer")
        cited = [int(number) - 1 for number in CITED.findall(said)]
        used = list(dict.fromkeys(at for at in cited if 0 <= at < len(given)))
        return Answer(said, "model", bool(used), _first(passages, used))


def stands_in(answer: str, passage: str) -> bool:
    """Whether a passage has these words in this order, whatever their case and the spaces; too short ones never do."""
    wanted = _plain(answer).rstrip(".")
    if len(wanted) < LEAST_CHARACTERS or len(wanted.split()) < LEAST_WORDS:
        return False
    return wanted in _plain(passage)


def sentences(text: str) -> list[tuple[int, int]]:
    """Where the sentences of a text begin and end; items of lists and lines of tables count as such. At least one."""
    spans = [found.span() for found in SENTENCE.finditer(text)]
    return spans or [(0, len(text))]


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())


def _within(passages: list[Passage], characters: int) -> list[str]:
    """The texts of the first passages that fit together; of the first one at least its beginning."""
    texts = [passages[0].text[:characters]]
    left = characters - len(texts[0])
    for passage in passages[1:]:
        left -= len(passage.text)
        if left < 0:
            break
        texts.append(passage.text)
    return texts


def _first(passages: list[Passage], used: list[int]) -> list[Passage]:
    """The passages with those that were used at the front."""
    return [passages[at] for at in used] + [each for at, each in enumerate(passages) if at not in used]
