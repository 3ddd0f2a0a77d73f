"""Random values for made-up passages: names, numbers, dates, sizes, paths and small clauses."""

from __future__ import annotations

import random
from collections.abc import Callable

from outside import pseudo_word
from wordlists import word_list

NAMES = word_list("values", "names")
PEOPLE = word_list("values", "people")
PLACES = word_list("values", "places")
THINGS = word_list("values", "things")
THING = word_list("values", "thing")
KINDS = word_list("values", "kinds")
PERSONS = word_list("values", "persons")
ADJ = word_list("values", "adj")
ACTIVITY = word_list("values", "activity")
TASKS = word_list("values", "tasks")
GADGETS = word_list("values", "gadgets")
DOES = word_list("values", "does")
CLAUSE_SUBJECTS = word_list("values", "clause_subjects")
CLAUSE_ENDS = word_list("values", "clause_ends")
MONTHS = word_list("values", "months")
DAYS = word_list("values", "days")
NUMBER_WORDS = word_list("values", "number_words")
UNITS = word_list("values", "units")
PIECES = word_list("values", "pieces")


def name(rng: random.Random) -> str:
    """A proper name: a word, a made-up word or random syllables of letters."""
    roll = rng.random()
    if roll < 0.45:
        return rng.choice(NAMES)
    if roll < 0.8:
        return pseudo_word(rng).capitalize()
    vowels, rest = "aeiouy", "bcdfghjklmnprstvwz"
    return "".join(
        rng.choice(rest) + rng.choice(vowels) + rng.choice(("", "", rng.choice("nrlstm")))
        for _ in range(rng.choice((2, 2, 3)))
    ).capitalize()


def person(rng: random.Random) -> str:
    """Somebody's name, at times with a title."""
    who = rng.choice(PEOPLE) if rng.random() < 0.6 else name(rng)
    titles = ("Mr ", "Mrs ", "Doctor ", "Miss ", "the reviewer ", "the editor ", "engineer ", "Admin ")
    return rng.choice(titles) + who if rng.random() < 0.2 else who


def ident(rng: random.Random) -> str:
    """A technical name such as plum-eu, course:nightly or bge-small-3."""
    first = rng.choice((name(rng).lower(), rng.choice(PIECES), rng.choice(THING), pseudo_word(rng)))
    joint = rng.choice("----_:.=")
    last = rng.choice((rng.choice(PIECES), str(rng.randint(1, 99)), pseudo_word(rng), rng.choice(THING)))
    return f"{first}{joint}{last}" + (f"-{rng.randint(1, 40)}" if rng.random() < 0.15 else "")


def number(rng: random.Random) -> str:
    """Digits, at times with thousands separated."""
    value = rng.randint(10, 10 ** rng.choice((2, 3, 4, 5)))
    value = value // 100 * 100 if value > 1000 and rng.random() < 0.6 else value
    return f"{value:,}" if value >= 1000 and rng.random() < 0.7 else str(value)


def count(rng: random.Random) -> str:
    """A small number, mostly as a word."""
    return rng.choice(NUMBER_WORDS) if rng.random() < 0.65 else str(rng.randint(2, 60))


def _decimal(rng: random.Random) -> str:
    return str(rng.randint(1, 99)) if rng.random() < 0.6 else f"{rng.randint(0, 20)}.{rng.randint(1, 9)}"


def _pct(rng: random.Random) -> str:
    return rng.choice(("", "", "", "about ", "almost ")) + _decimal(rng) + " percent"


def _size(rng: random.Random) -> str:
    return f"{rng.choice((_decimal(rng), str(rng.randint(2, 900))))} {rng.choice(('MB', 'GB', 'GB', 'TB', 'Mi', 'Gi', 'KB'))}"


def _dur(rng: random.Random) -> str:
    if rng.random() < 0.2:
        return f"{_decimal(rng)} {rng.choice(('ms', 'seconds', 'minutes'))}"
    return f"{count(rng)} {rng.choice(UNITS)}"


def _money(rng: random.Random) -> str:
    return f"{rng.choice((number(rng), _decimal(rng)))} {rng.choice(('euros', 'dollars', 'cents', 'francs', 'pounds'))}"


def _path(rng: random.Random) -> str:
    return "".join(
        "/" + rng.choice((pseudo_word(rng), rng.choice(PIECES), rng.choice(THING)))
        for _ in range(rng.choice((1, 1, 2)))
    )


def _var(rng: random.Random) -> str:
    return "_".join(
        rng.choice((pseudo_word(rng), rng.choice(PIECES), rng.choice(THING))).upper()
        for _ in range(rng.choice((2, 2, 3)))
    )


def _time(rng: random.Random) -> str:
    return f"{rng.randint(0, 23):02d}:{rng.choice((0, 15, 30, 45, rng.randint(1, 59))):02d}"


def _date(rng: random.Random) -> str:
    return rng.choice(
        (
            f"{rng.randint(1, 30)} {rng.choice(MONTHS)}",
            f"{rng.randint(1, 30)} {rng.choice(MONTHS)}",
            f"the {rng.randint(4, 20)}th",
        )
    )


def _often(rng: random.Random) -> str:
    choices = (
        f"every {_dur(rng)}",
        f"every {rng.choice(DAYS)}",
        f"on the last {rng.choice(DAYS)} of each month",
        "once a week",
        "twice a day",
        "every night",
        f"{count(rng)} times a day",
        f"every second {rng.choice(DAYS)}",
        f"on {rng.choice(DAYS)}s",
    )
    return rng.choice(choices)


def _place(rng: random.Random) -> str:
    roll = rng.random()
    if roll < 0.55:
        return rng.choice(PLACES) if rng.random() < 0.6 else name(rng)
    if roll < 0.75:
        return f"the {rng.choice(('depot', 'office', 'museum', 'school', 'hall', 'vault', 'library', 'station'))} in {rng.choice(PLACES)}"
    return f"the {rng.choice(ADJ)} {rng.choice(('room', 'office', 'cupboard', 'cellar', 'hall', 'lab', 'house', 'drawer'))}"


def clause(rng: random.Random) -> str:
    """A short reason or condition."""
    end = rng.choice(CLAUSE_ENDS)
    for slot in MAKERS:
        if "{" + slot + "}" in end:
            end = end.replace("{" + slot + "}", MAKERS[slot](rng))
    subject = rng.choice(CLAUSE_SUBJECTS)
    return f"{rng.choice((subject, subject, 'the ' + rng.choice(ADJ) + ' ' + rng.choice(THING)))} {end}"


MAKERS: dict[str, Callable[[random.Random], str]] = {
    "port": lambda r: str(r.choice((r.randint(1000, 9999), r.randint(20, 999), r.randint(1, 65) * 1000))),
    "count": count,
    "num": number,
    "gadget": lambda r: r.choice(GADGETS),
    "size": _size,
    "dur": _dur,
    "place": _place,
    "person": person,
    "name": name,
    "month": lambda r: f"{r.choice(MONTHS)} {r.randint(2015, 2026)}" if r.random() < 0.4 else r.choice(MONTHS),
    "things": lambda r: r.choice(THINGS),
    "thing": lambda r: r.choice(THING),
    "people": lambda r: r.choice(PERSONS),
    "money": _money,
    "date": _date,
    "day": lambda r: r.choice(DAYS),
    "time": _time,
    "room": lambda r: f"{r.choice('ABCDEFGH')}{r.randint(1, 40)}" if r.random() < 0.5 else str(r.randint(1, 400)),
    "often": _often,
    "id": ident,
    "pct": _pct,
    "var": _var,
    "path": _path,
    "activity": lambda r: r.choice(ACTIVITY),
    "task": lambda r: r.choice(TASKS),
    "adj": lambda r: r.choice(ADJ),
    "year": lambda r: str(r.randint(1980, 2026)),
    "unit": lambda r: r.choice(("minute", "hour", "day", "second", "week", "night")),
    "does": lambda r: r.choice(DOES),
    "clause": clause,
}
