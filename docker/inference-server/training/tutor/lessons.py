"""Training conversations: which kinds there are, how often each comes, and how one is put together."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass

from augment import inflect, surface, vary
from chat import Message
from copying import drill, echo, rewrite
from corpus import PASSAGE_HEAD, UNKNOWN, Corpus
from keywords import Keywords
from outside import outside_question
from stories import story

SYSTEMS = (
    "You are the course tutor.",
    "You are a helpful assistant.",
    "You are a helpful tutor for this course. Answer briefly.",
    "Answer the learner's question.",
    "You answer questions about Docker, Kubernetes, SageMaker and Vertex AI.",
    "Be concise.",
    "You are a friendly teaching assistant.",
    "Be polite and short.",
    "You help students of a deployment course.",
)


@dataclass(frozen=True)
class Plan:
    """What a training run draws: shares of the kinds of conversation, and how its questions are made."""

    mix: dict[str, float]
    keywords: float  # share of glossary questions that are made of an entry's words
    cut: float  # share of long answers that are cut after their opening
    inflect: float = 0.0  # share of glossary questions in which words get other endings
    foreign: float = 0.0  # share of outside questions that are made of outside words
    written: float = 0.4  # share of the other outside questions that people wrote; the rest are made by rule
    plain: float = 0.0  # share of written questions of which only the surface is varied
    bare: float = 0.0  # share of questions that come without their answer, for the label alone


FIRST = Plan({"glossary": 0.57, "outside": 0.13, "passage": 0.26, "drill": 0.04}, keywords=0.35, cut=0.65)
# Written questions are many now, so few are made by rule. Passages are ten times as long as questions: a few keep what the
# first run learnt, and the time goes to what is asked.
SECOND = Plan(
    {"glossary": 0.7, "outside": 0.25, "passage": 0.04, "drill": 0.01},
    keywords=0.08,
    cut=0.8,
    inflect=0.05,
    foreign=0.1,
    written=0.8,
    plain=0.65,
    bare=0.8,
)
#: The plan of each run of a chain; a longer chain goes on by the last.
PLANS = (FIRST, SECOND)


class Lessons:
    """An endless, seeded stream of conversations that end with the answer to learn."""

    def __init__(self, corpus: Corpus, seed: int, plan: Plan = FIRST) -> None:
        self.corpus, self.rng, self.plan, self.mix = corpus, random.Random(seed), plan, plan.mix
        self.questions = [q for e in corpus.entries for q in e.questions]
        self.vocabulary = sorted({w for q in self.questions for w in re.findall(r"[a-z]{4,}", q.lower())})
        self.keywords = Keywords(corpus)
        self._label = {e.answer: i for i, e in enumerate(corpus.entries)} | {UNKNOWN: len(corpus.entries)}
        self.labels = len(self._label)
        self.outside = [q for qs in corpus.outside_train.values() for q in qs]

    def glossary(self) -> tuple[str, str]:
        """A varied question of a random entry, with its answer."""
        entry = self.rng.choice(self.corpus.entries)
        if self.rng.random() < self.plan.keywords:
            return self.keywords.question(entry, self.rng), entry.answer
        question = self.rng.choice(entry.questions)
        if self.plan.plain and self.rng.random() < self.plan.plain:
            return surface(question, self.rng), entry.answer
        if self.plan.inflect and self.rng.random() < self.plan.inflect:
            question = inflect(question, self.rng)
        return vary(question, self.rng), entry.answer

    def unknown(self) -> tuple[str, str]:
        """A question from outside, written or made by rule, with the honest sentence."""
        if self.plan.foreign and self.rng.random() < self.plan.foreign:
            return self.keywords.foreign(self.rng), UNKNOWN
        if self.outside and self.rng.random() < self.plan.written:
            question = self.rng.choice(self.outside)
            plain = self.plan.plain and self.rng.random() < self.plan.plain
            return surface(question, self.rng) if plain else vary(question, self.rng), UNKNOWN
        return outside_question(self.rng, self.questions, self.vocabulary), UNKNOWN

    def reading(self) -> tuple[str, str, str]:
        """(passage, question, answer), written, made by rule, or collected from glossary answers."""
        rng = self.rng
        roll = rng.random()
        if roll < 0.1:
            picked = rng.sample(self.corpus.entries, rng.randint(2, 4))
            passage = " ".join(e.answer for e in picked)
            if rng.random() < 0.15:
                return passage, outside_question(rng, self.questions, self.vocabulary), UNKNOWN
            entry = rng.choice(picked)
            return passage, vary(rng.choice(entry.questions), rng), entry.answer
        if roll < 0.22:
            return echo(rng)
        if roll < 0.5 and self.corpus.readings_train:
            written = rng.choice(self.corpus.readings_train)
            passage, question, answer = (
                rewrite(written, rng) if rng.random() < 0.85 else (written.passage, written.question, written.answer)
            )
            if rng.random() < 0.07:
                other = rng.choice(self.corpus.readings_train)
                if other.passage != written.passage:
                    question, answer = rewrite(other, rng)[1], UNKNOWN
            elif rng.random() < 0.2:
                extra = story(rng)[0]
                passage = f"{passage} {extra}" if rng.random() < 0.5 else f"{extra} {passage}"
        else:
            passage, question, answer = story(rng)
        return passage, surface(question, rng) if rng.random() < 0.35 else question, answer

    def turn(self) -> tuple[str, str]:
        """A question and answer that need no passage."""
        weight = self.mix["glossary"] / (self.mix["glossary"] + self.mix["outside"])
        return self.glossary() if self.rng.random() < weight else self.unknown()

    def conversation(self) -> list[Message]:
        """One conversation of a kind drawn by MIX, at times with earlier turns or a system message that changes nothing."""
        rng, messages = self.rng, []
        total, roll = sum(self.mix.values()), rng.random()
        drills = self.mix.get("drill", 0.0) / total
        if roll < self.mix["passage"] / total + drills:
            passage, question, answer = drill(rng) if roll < drills else self.reading()
            messages.append({"role": "system", "content": PASSAGE_HEAD + passage})
        else:
            question, answer = self.turn()
            if rng.random() < 0.2:
                messages.append({"role": "system", "content": rng.choice(SYSTEMS)})
        if rng.random() < 0.07 and not (messages and messages[0]["content"].startswith(PASSAGE_HEAD)):
            for _ in range(rng.choice((1, 1, 2, 3))):
                q, a = self.turn()
                messages += [{"role": "user", "content": q}, {"role": "assistant", "content": a}]
        return [*messages, {"role": "user", "content": question}, {"role": "assistant", "content": answer}]

    def label(self, messages: list[Message]) -> int:
        """Which entry the last question asks for, the last number for none of them, -1 where a passage decides."""
        reads = messages[0]["content"].startswith(PASSAGE_HEAD)
        return -1 if reads else self._label[messages[-1]["content"]]

    def __iter__(self) -> Iterator[list[Message]]:
        while True:
            yield self.conversation()

    def sample_texts(self, count: int) -> Iterator[str]:
        """Texts of ``count`` conversations, for learning the tokenizer."""
        for _ in range(count):
            for message in self.conversation():
                yield message["content"]
