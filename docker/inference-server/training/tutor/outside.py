"""Questions that the course does not answer, made by rule: general, nearby (course words, other matter) and nonsense.

They teach the tutor where its knowledge ends; outside.yaml, which judges that, is never read here.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from augment import FILLERS, FRAMES, surface, typo
from wordlists import word_list

THINGS = word_list("outside", "things")
PLACES = word_list("outside", "places")
PEOPLE = word_list("outside", "people")
FOODS = word_list("outside", "foods")
ACTS = word_list("outside", "acts")
GENERAL = word_list("outside", "general")
NEAR_TOOLS = word_list("outside", "near_tools")
NEAR_FRAMES = word_list("outside", "near_frames")
TERMS = word_list("outside", "terms")
SYLLABLES = word_list("outside", "syllables")
PETS = word_list("outside", "pets")
WORDS = word_list("outside", "words")


def pseudo_word(rng: random.Random) -> str:
    """A word that does not exist."""
    return "".join(rng.choice(SYLLABLES) for _ in range(rng.choice((2, 2, 3))))


def _fill(frame: str, rng: random.Random, terms: Sequence[str]) -> str:
    return frame.format(
        thing=rng.choice(THINGS),
        thing2=rng.choice(THINGS),
        place=rng.choice(PLACES),
        place2=rng.choice(PLACES),
        person=rng.choice(PEOPLE),
        food=rng.choice(FOODS),
        act=rng.choice(ACTS),
        act2=rng.choice(ACTS),
        n=rng.randint(2, 999),
        m=rng.randint(2, 99),
        year=rng.randint(1850, 2025),
        pet=rng.choice(PETS),
        word=rng.choice(WORDS),
        tool=rng.choice(NEAR_TOOLS),
        tool2=rng.choice(NEAR_TOOLS),
        term=rng.choice(terms),
    )


def nonsense(rng: random.Random, vocabulary: Sequence[str]) -> str:
    """Letters, made-up words, or real words in an order that asks nothing."""
    roll = rng.randrange(7)
    if roll == 0:
        return " ".join(
            "".join(rng.choice("asdfghjklqwertyuiopzxcvbnm") for _ in range(rng.randint(3, 9)))
            for _ in range(rng.randint(1, 4))
        )
    if roll == 1:
        return " ".join(pseudo_word(rng) for _ in range(rng.randint(1, 6)))
    if roll == 2:
        return rng.choice(FRAMES).format(
            x=rng.choice(("", "a ", "the ")) + pseudo_word(rng) + rng.choice(("", " " + pseudo_word(rng)))
        )
    if roll == 3:
        return "".join(rng.choice("0123456789 ?!.#%&/()=+-;:xz") for _ in range(rng.randint(2, 20)))
    if roll == 4:
        pool = [*WORDS, *(t.split()[-1] for t in THINGS), *FOODS, *PETS]
        return " ".join(rng.choice(pool) for _ in range(rng.randint(2, 8)))
    if roll == 5:
        thing = f"{rng.choice(WORDS)} {rng.choice(PETS)}"
        verb = rng.choice(["eat", "paint", "marry", "fold", "whistle", "boil", "iron", "hug", "forgive", "tickle"])
        frames = (
            "why does the {t} {v} my {w}",
            "how many {w}s {v} a {t}",
            "when will the {w} {v} its {t}",
            "does a {t} {v} {w}",
            "{v} the {t} {w}",
        )
        return rng.choice(frames).format(t=thing, v=verb, w=rng.choice((*WORDS, rng.choice(vocabulary))))
    mixed = [
        rng.choice(vocabulary),
        *rng.sample(WORDS, 2),
        rng.choice(PETS),
        rng.choice(vocabulary),
        pseudo_word(rng),
    ]
    rng.shuffle(mixed)
    return " ".join(mixed)


def corrupt(question: str, rng: random.Random) -> str:
    """A training question whose telling words are replaced by outside matter: near in form, not in the course."""
    parts = question.rstrip("?.!").split()
    telling = [i for i, w in enumerate(parts) if w.lower() not in FILLERS and len(w) > 3]
    for i in telling[1:] if len(telling) > 3 else telling:
        parts[i] = rng.choice(
            (
                rng.choice(WORDS),
                rng.choice(THINGS).split()[-1],
                rng.choice(NEAR_TOOLS),
                rng.choice(FOODS),
                rng.choice(PETS),
            )
        )
    return " ".join(parts)


def outside_question(rng: random.Random, questions: Sequence[str], vocabulary: Sequence[str]) -> str:
    """One question made by rule; ``questions`` and ``vocabulary`` are the glossary's training questions and their words."""
    roll = rng.random()
    if roll < 0.36:
        text = _fill(rng.choice(GENERAL), rng, TERMS)
    elif roll < 0.66:
        text = _fill(rng.choice(NEAR_FRAMES), rng, TERMS)
    elif roll < 0.8:
        text = corrupt(rng.choice(questions), rng)
    elif roll < 0.85:
        text = " ".join(typo(w, rng) for w in _fill(rng.choice(GENERAL), rng, TERMS).split())
    else:
        text = nonsense(rng, vocabulary)
    return surface(text, rng)
