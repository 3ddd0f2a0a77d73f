"""Ways to ask the same thing: frames, case, punctuation, typos, dropped words and synonyms, for training questions only."""

from __future__ import annotations

import random
import re

from wordlists import word_groups, word_list

FRAMES = word_list("augment", "frames")
_ASKS_WHAT = re.compile(
    r"^(?:what is|what's|what are|explain|define|describe|tell me about|what is meant by|what do you mean by)\s+(.+?)[?.!]*$",
    re.I,
)
PREFIXES = word_list("augment", "prefixes")
SUFFIXES = word_list("augment", "suffixes")
SYNONYMS = word_groups("augment", "synonyms")
_ALTERNATIVES: dict[str, list[str]] = {}
for _group in SYNONYMS:
    for _w in _group:
        _ALTERNATIVES.setdefault(_w, []).extend(x for x in _group if x != _w)
FILLERS = frozenset(
    [
        "a",
        "an",
        "the",
        "of",
        "is",
        "are",
        "do",
        "does",
        "to",
        "in",
        "on",
        "for",
        "i",
        "my",
        "me",
        "it",
        "and",
        "that",
        "this",
        "with",
        "be",
        "by",
        "you",
        "your",
        "can",
    ]
)
_NEAR = {a: row for row in ("qwertyuiop", "asdfghjkl", "zxcvbnm") for a in row}


def typo(word: str, rng: random.Random) -> str:
    """One slip of the fingers: swapped, dropped, doubled or neighbouring letter."""
    if len(word) < 4 or not word.isalpha():
        return word
    i = rng.randrange(1, len(word) - 1)
    kind = rng.randrange(4)
    if kind == 0:
        return word[:i] + word[i + 1] + word[i] + word[i + 2 :]
    if kind == 1:
        return word[:i] + word[i + 1 :]
    if kind == 2:
        return word[:i] + word[i] + word[i:]
    row = _NEAR.get(word[i].lower(), word[i])
    return word[:i] + row[(row.find(word[i].lower()) + 1) % len(row)] + word[i + 1 :]


def reframe(question: str, rng: random.Random) -> str:
    """Put the thing asked about into another frame, where the question has the form 'what is X'."""
    match = _ASKS_WHAT.match(question.strip())
    return rng.choice(FRAMES).format(x=match.group(1)) if match else question


def synonyms(question: str, rng: random.Random) -> str:
    """Swap at most two words or phrases for others of like meaning."""
    found = [k for k in _ALTERNATIVES if re.search(rf"\b{re.escape(k)}\b", question, re.I)]
    for key in rng.sample(found, min(len(found), rng.choice((1, 1, 2)))):
        question = re.sub(rf"\b{re.escape(key)}\b", rng.choice(_ALTERNATIVES[key]), question, count=1, flags=re.I)
    return question


def drop_words(question: str, rng: random.Random) -> str:
    """Leave out filler words and, in longer questions, one other word at times."""
    parts = question.split()
    kept = [w for w in parts if w.lower().strip("?,.!") not in FILLERS or rng.random() < 0.4]
    if len(kept) >= 5 and rng.random() < 0.4:
        kept.pop(rng.randrange(len(kept)))
    return " ".join(kept or parts)


def surface(text: str, rng: random.Random) -> str:
    """Case, closing punctuation and typos: noise that never changes what is asked."""
    text = text.strip()
    roll = rng.random()
    if roll < 0.35:
        text = text.rstrip("?.! ")
    elif roll < 0.42:
        text = text.rstrip("?.! ") + rng.choice(("??", ".", "!", " ?", "...", "?!", ":"))
    elif roll < 0.6 and text[-1:] not in "?.!":
        text += "?"
    roll = rng.random()
    if roll < 0.35:
        text = text.lower()
    elif roll < 0.38:
        text = text.upper()
    elif roll < 0.6:
        text = text[:1].upper() + text[1:]
    if rng.random() < 0.15:
        parts = text.split(" ")
        for _ in range(rng.choice((1, 1, 2))):
            i = rng.randrange(len(parts))
            parts[i] = typo(parts[i], rng)
        text = " ".join(parts)
    return text


def inflect(question: str, rng: random.Random) -> str:
    """Give one or two words another ending: drop, drops, dropping, dropped."""
    parts = question.split()
    able = [
        i
        for i, w in enumerate(parts)
        if len(w.strip("?.!,")) > 3 and w.strip("?.!,").isalpha() and w.lower() not in FILLERS
    ]
    for i in rng.sample(able, min(len(able), rng.choice((1, 1, 2)))):
        word = parts[i].rstrip("?.!,")
        parts[i] = _other_ending(word, rng) + parts[i][len(word) :]
    return " ".join(parts)


def _other_ending(word: str, rng: random.Random) -> str:
    """The word's stem, roughly, with a random ending; misspelt ones do no harm, learners misspell too."""
    stem = word
    for ending in ("ings", "ing", "ies", "ied", "ed", "es", "s", "e", "y"):
        if word.endswith(ending) and len(word) - len(ending) > 2 and not word.endswith("ss"):
            stem = word[: -len(ending)]
            break
    if stem == word:
        return word + rng.choice(("s", "ing", "ed", "s"))
    if word.endswith(("ies", "ied", "y")):
        return stem + rng.choice(("y", "ies", "ied", "ying"))
    if (
        len(stem) > 3
        and stem[-1] == stem[-2]
        and stem[-1] not in "ls"
        and word.endswith(("ing", "ed"))
        and rng.random() < 0.6
    ):
        return stem[:-1] + rng.choice(("", "s"))
    if word.endswith("e"):
        return stem + rng.choice(("es", "ing", "ed", "es"))
    return stem + rng.choice(("", "s", "ing", "ed", "e"))


def vary(question: str, rng: random.Random) -> str:
    """A random variant of a training question; about one in five stays as written apart from its surface."""
    if rng.random() < 0.45:
        question = reframe(question, rng)
    if rng.random() < 0.35:
        question = synonyms(question, rng)
    if rng.random() < 0.3:
        question = drop_words(question, rng)
    if rng.random() < 0.06:
        parts = question.rstrip("?.!").split()
        rng.shuffle(parts)
        question = " ".join(parts)
    if rng.random() < 0.15:
        question = rng.choice(PREFIXES) + question
    if rng.random() < 0.15:
        question = question.rstrip("?.! ") + rng.choice(SUFFIXES)
    return surface(question, rng)
