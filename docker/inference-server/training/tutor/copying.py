"""Two more ways to practise copying: plain echoes, and written passages with other names and numbers in them."""

from __future__ import annotations

import random
import re

from corpus import Reading
from stories import story
from values import DAYS, MAKERS, MONTHS, NUMBER_WORDS, PEOPLE, PLACES, THING, THINGS, name, person
from wordlists import word_list

REPEATS = ("Repeat the passage.", "What does the passage say?", "Read the passage to me.", "Say the passage again.")
NEXTS = ("What comes after {w}?", "What stands right after {w}?", "Which words follow {w}?", "Go on after {w}.")
_KEEP = frozenset(word_list("copying", "keep"))


def echo(rng: random.Random) -> tuple[str, str, str]:
    """The whole of a short text, or what comes after one of its words: it teaches looking back early."""
    if rng.random() < 0.4:
        text = story(rng)[0].split()
    else:
        makers = (name, person, MAKERS["id"], MAKERS["num"], MAKERS["thing"])
        text = [rng.choice(makers)(rng) for _ in range(24)]
    if rng.random() < 0.4:
        passage = " ".join(text[: rng.randint(5, 14)])
        return passage, rng.choice(REPEATS), passage
    text = text[: rng.randint(8, 40)]
    once = [i for i in range(len(text) - 1) if text.count(text[i]) == 1]
    i = rng.choice(once) if once else 0
    asked = rng.choice(NEXTS).format(w=text[i].strip(".,;:"))
    return " ".join(text), asked, " ".join(text[i + 1 : i + 1 + rng.randint(1, 6)])


def drill(rng: random.Random) -> tuple[str, str, str]:
    """Copying and nothing else, dense in things to copy: repeat random words, or look a word up among pairs."""
    roll = rng.random()
    if roll < 0.15:
        return echo(rng)
    makers = (
        name,
        person,
        MAKERS["id"],
        MAKERS["num"],
        MAKERS["thing"],
        MAKERS["path"],
        MAKERS["adj"],
        MAKERS["place"],
    )
    if roll < 0.7:
        passage = " ".join(rng.choice(makers)(rng) for _ in range(rng.randint(2, 10)))
        return passage, rng.choice(REPEATS), passage
    keys = list(dict.fromkeys(rng.choice(makers)(rng) for _ in range(rng.randint(2, 5))))
    pairs = {key: rng.choice(makers)(rng) for key in keys}
    shape = rng.choice(("{k}: {v}.", "{k} is {v}.", "{k} has {v}.", "The word for {k} is {v}.", "{k} goes to {v}."))
    asked = shape.replace("{v}.", "what?") if rng.random() < 0.5 else "What belongs to {k}?"
    key = rng.choice(keys)
    return " ".join(shape.format(k=k, v=v) for k, v in pairs.items()), asked.format(k=key), pairs[key]


def rewrite(reading: Reading, rng: random.Random) -> tuple[str, str, str]:
    """The written passage with other digits, number words, days, months and names, the same in its question."""
    text = f"{reading.passage}\0{reading.question}\0{reading.answer}"
    for number in sorted(set(re.findall(r"\d+", text))):
        if rng.random() < 0.75:
            other = str(rng.randint(1, 9)) + "".join(rng.choice("0123456789") for _ in number[1:])
            text = re.sub(rf"(?<!\d){number}(?!\d)", "".join(chr(0xE000 + int(c)) for c in other), text)
    text = "".join(str(ord(c) - 0xE000) if 0xE000 <= ord(c) < 0xE00A else c for c in text)
    for group in (NUMBER_WORDS, DAYS, MONTHS, PLACES):
        present = [w for w in group if re.search(rf"\b{w}\b", text)]
        for word, other in zip(present, rng.sample(group, len(present)), strict=True):
            text = re.sub(rf"\b{word}\b", f"\1{other}\1", text)
    text = text.replace("\1", "")
    fixed = _KEEP | set(DAYS) | set(MONTHS) | set(PLACES)
    capitals = set(re.findall(r"(?<=[a-z,] )[A-Z][a-z]{2,}\b", text)) - fixed
    for word in sorted(capitals):
        if rng.random() < 0.8:
            text = re.sub(rf"\b{word}\b", rng.choice((name(rng), name(rng), rng.choice(PEOPLE))), text)
    for word in sorted(w for w in {*THINGS, *THING} if re.search(rf"\b{w}\b", text)):
        if rng.random() < 0.15:
            text = re.sub(rf"\b{word}\b", rng.choice(THINGS if word in THINGS else THING), text)
    passage, question, answer = text.split("\0")
    if answer not in passage:
        return reading.passage, reading.question, reading.answer
    return passage, question, answer
