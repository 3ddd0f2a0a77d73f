"""Questions from an entry's own words: a few telling words of its training questions and answer, in a borrowed frame.

A held-out question uses the entry's terms in another sentence. This is that, made by rule: the words are drawn by how
rare they are in the whole glossary, so the network learns which words decide, whatever stands around them.
"""

from __future__ import annotations

import math
import random
import re
from collections import Counter

from augment import FILLERS, surface
from corpus import Corpus, Entry
from outside import ACTS, FOODS, NEAR_TOOLS, THINGS, pseudo_word

ASKING = frozenset(
    [
        "what",
        "why",
        "how",
        "when",
        "which",
        "who",
        "where",
        "explain",
        "describe",
        "define",
        "tell",
        "meaning",
        "mean",
        "means",
        "does",
        "should",
        "would",
    ]
)
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_./:=-]*[A-Za-z0-9]|[A-Za-z0-9]")


def _telling(text: str) -> list[str]:
    return [w for w in _WORD.findall(text) if w.lower() not in FILLERS and w.lower() not in ASKING]


class Keywords:
    """The glossary's words by entry, each with its weight."""

    def __init__(self, corpus: Corpus) -> None:
        own = {e.id: [*(w for q in e.questions for w in _telling(q)), *_telling(e.answer)] for e in corpus.entries}
        spread = Counter(w for ws in own.values() for w in {x.lower() for x in ws})
        rarity = {w: math.log(1 + len(own) / n) ** 2 for w, n in spread.items()}
        self.words = {i: list(dict.fromkeys(ws)) for i, ws in own.items()}
        self.weights = {i: [rarity[w.lower()] * (1 + own[i].count(w)) ** 0.5 for w in self.words[i]] for i in own}
        known = set(spread) | FILLERS | ASKING
        texts = [q for qs in corpus.outside_train.values() for q in qs]
        strange = [
            w
            for text in [*texts, *THINGS, *NEAR_TOOLS, *FOODS, *ACTS]
            for w in _telling(text)
            if w.lower() not in known
        ]
        self.strange = list(dict.fromkeys(strange))
        self.frames = [q for e in corpus.entries for q in e.questions]

    def question(self, entry: Entry, rng: random.Random) -> str:
        """Two to five of the entry's words, alone, between small words, or in place of another question's words."""
        count = rng.choice((2, 2, 3, 3, 4, 5))
        picked = list(dict.fromkeys(rng.choices(self.words[entry.id], self.weights[entry.id], k=count)))
        return self._place(picked, rng)

    def foreign(self, rng: random.Random) -> str:
        """The same made of words that no entry has: words that decide nothing may not look as if they did."""
        picked = rng.sample(self.strange, rng.choice((1, 1, 2, 2, 3, 4)))
        if rng.random() < 0.25:
            picked[0] = pseudo_word(rng)
        return self._place(picked, rng)

    def _place(self, picked: list[str], rng: random.Random) -> str:
        roll = rng.random()
        if roll < 0.4:
            return surface(" ".join(picked), rng)
        if roll < 0.7:
            frame = rng.choice(self.frames).rstrip("?.! ").split()
            slots = [i for i, w in enumerate(frame) if _telling(w)] or [len(frame) - 1]
            for i in slots[len(picked) :]:
                frame[i] = ""
            for i, word in zip(slots, picked, strict=False):
                frame[i] = word
            rest = picked[len(slots) :]
            return surface(" ".join([*filter(None, frame), *rest]), rng)
        small = rng.sample(sorted(FILLERS), rng.randint(1, 4))
        start = rng.choice(
            ("what", "why", "how", "when", "which", "can I", "should I", "how do I", "my", "does", "is it")
        )
        mixed = [*picked, *small]
        rng.shuffle(mixed)
        return surface(" ".join([start, *mixed]), rng)
