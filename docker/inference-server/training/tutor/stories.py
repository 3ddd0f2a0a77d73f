"""Passages made by rule, with a question whose answer is a span of the passage: practice in copying the unseen."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass

from corpus import UNKNOWN
from facts import FACTS, Fact, free_fact
from values import ADJ, KINDS, MAKERS, PEOPLE, PLACES, name, person
from wordlists import word_list

_SLOT = re.compile(r"\{(\w+?)(\d?)\}")
_LOWERED = frozenset(word_list("stories", "lowered"))


def _inside(sentence: str) -> str:
    """The sentence as the second half of another: its first word loses the capital unless it is a name."""
    first = sentence.split()[0].rstrip(",")
    return sentence if first in PEOPLE or first not in _LOWERED else sentence[:1].lower() + sentence[1:]


@dataclass
class _Subject:
    """Something that the sentences are about, by its kind and, mostly, its name."""

    kind: str
    label: str
    told: bool = False

    def surface(self, rng: random.Random, start: bool) -> str:
        """How the passage names it: in full first, later also by name, kind or 'it'."""
        full = f"the {self.kind} {self.label}" if self.label else f"the {self.kind}"
        forms = (
            [full, self.label or full, f"the {self.kind}", "it", "it"]
            if self.told
            else [full, full, self.label or full]
        )
        self.told = True
        text = rng.choice(forms)
        return text[:1].upper() + text[1:] if start else text

    def asked(self, rng: random.Random) -> str:
        """How a question names it."""
        if not self.label:
            return f"the {self.kind}"
        return rng.choice((self.label, self.label, f"the {self.kind} {self.label}", f"the {self.kind}"))


def _subject(rng: random.Random) -> _Subject:
    roll, kind = rng.random(), rng.choice(KINDS)
    if roll < 0.72:
        return _Subject(kind, name(rng) if rng.random() < 0.75 else MAKERS["id"](rng))
    if roll < 0.86:
        return _Subject(
            kind,
            rng.choice((f"of {person(rng)}", f"in {rng.choice(PLACES)}", f"of the {rng.choice(KINDS)} {name(rng)}")),
        )
    return _Subject(f"{rng.choice(ADJ)} {kind}", "")


def _fill(fact: Fact, subject: _Subject, rng: random.Random) -> tuple[str, list[tuple[str, str]]]:
    """The sentence with values in its slots, and its questions with answers."""
    values: dict[str, str] = {}

    def value(match: re.Match[str]) -> str:
        slot, key = match.group(1), match.group(0)
        if slot in ("S", "s", "Q"):
            return key
        if key not in values:
            values[key] = MAKERS[slot](rng)
        return values[key]

    sentence = _SLOT.sub(value, fact.sentence)
    shown = subject.surface(rng, "{S}" in fact.sentence)
    sentence = sentence.replace("{S}", shown).replace("{s}", shown)
    sentence = sentence[:1].upper() + sentence[1:]
    pairs = []
    for q, a in fact.pairs:
        answer = _SLOT.sub(value, a)
        for key in ("{S}", "{s}", "{Q}"):
            answer = answer.replace(key, shown)
        if answer in sentence and answer not in ("it", "It"):
            pairs.append((_SLOT.sub(value, q).replace("{Q}", subject.asked(rng)), answer))
    return sentence, pairs


def story(rng: random.Random) -> tuple[str, str, str]:
    """(passage, question, answer): two to five sentences about one or two subjects."""
    subjects = [_subject(rng) for _ in range(rng.choice((1, 1, 1, 2)))]
    sentences: list[str] = []
    pairs: list[tuple[str, str]] = []
    for i in range(rng.choice((2, 3, 3, 4, 5))):
        fact = free_fact(rng) if rng.random() < 0.35 else rng.choice(FACTS)
        told = subjects[min(i // 2, len(subjects) - 1)] if rng.random() < 0.8 else rng.choice(subjects)
        sentence, found = _fill(fact, told, rng)
        joins = rng.random() < 0.25 and sentences and not sentence.startswith(("If", "When"))
        if joins and len(sentences[-1]) < 70:
            joint = rng.choice((", and ", "; ", ", but ", " and "))
            sentences[-1] = sentences[-1][:-1] + joint + _inside(sentence)
        else:
            sentences.append(sentence)
        pairs += found
    passage = " ".join(sentences)
    pairs = [(q, a) for q, a in pairs if a in passage]
    if not pairs or rng.random() < 0.09:
        other = rng.choice(FACTS) if rng.random() < 0.6 else free_fact(rng)
        _, found = _fill(other, rng.choice((_subject(rng), subjects[0])), rng)
        asked = [q for q, a in found if a not in passage]
        return (passage, rng.choice(asked), UNKNOWN) if asked else story(rng)
    return passage, *rng.choice(pairs)
