"""Facts: sentences with slots and the questions that they answer, from facts.txt or put together from a verb."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from pathlib import Path

from wordlists import word_list

VERBS = word_list("stories", "verbs")
WHATS = (
    "{count} {things}",
    "{num} {things}",
    "{count} {adj} {things}",
    "the {adj} {thing}",
    "the {thing}",
    "a {thing} for {name}",
)
WHERES = ("", " in {place}", " for {activity}", " with {gadget}", " for {person2}")
WHENS = ("", "", " on {date}", " at {time}", " in {year}", " on {day}", " {often}", " within {dur}")
ASK_WHEN = {"on": "When", "at": "When", "in": "In which year", "within": "Within what time"}


@dataclass(frozen=True)
class Fact:
    """A sentence with slots and its (question, answer) patterns."""

    sentence: str
    pairs: tuple[tuple[str, str], ...]


def _read_facts() -> list[Fact]:
    lines = (Path(__file__).parent / "facts.txt").read_text(encoding="utf-8").splitlines()
    made = []
    for line in lines:
        if line and not line.startswith("#"):
            sentence, *rest = [part.strip() for part in line.split("||")]
            pairs = tuple((q.strip(), a.strip()) for q, a in (r.split("=>") for r in rest))
            made.append(Fact(sentence, pairs))
    return made


FACTS = _read_facts()


def _ask_where(where: str) -> tuple[str, str]:
    """(question word, answer) for the part that says where, for whom or with what."""
    word = where.split()[0]
    if word == "in":
        return "Where", where.strip()
    ask = "With what" if word == "with" else "For whom" if "person" in where else "For what"
    return ask, where.split(" ", 2)[2]


def _ask_when(when: str) -> tuple[str, str]:
    """(question word, answer) for the part that says when or how often."""
    ask = ASK_WHEN.get(when.split()[0], "How often")
    return ask, "{year}" if "year" in when else "{dur}" if "dur" in when else when.strip()


def free_fact(rng: random.Random) -> Fact:
    """A fact with a verb from the list: who did what, how much of it, where and when."""
    base, past = rng.choice(VERBS).split("/")
    who = rng.choice(("{S}", "{S}", "{person}", "The {people}"))
    asked = {"{S}": "{Q}", "{person}": "{person}", "The {people}": "the {people}"}[who]
    what = rng.choice(WHATS)
    noun = re.sub(r"^\{(count|num)\} ", "", what)
    where, when = rng.choice(WHERES), rng.choice(WHENS)
    pairs = [(f"What did {asked} {base}?", what), (f"Who {past} {what}?", who)]
    if noun != what:
        pairs += [(f"How many {noun} did {asked} {base}?", what.split()[0])] * 2
    for part, ask_of in ((where, _ask_where), (when, _ask_when)):
        if part:
            ask, answer = ask_of(part)
            pairs.append((f"{ask} did {asked} {base} {noun}?", answer))
    return Fact(f"{who} {past} {what}{where}{when}.", tuple(pairs))
