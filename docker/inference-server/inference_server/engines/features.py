"""From a text to the rows of a hashed table: its words, and the pieces of three to five letters that each word is made of.

Pieces bring words together that share a stem or are misspelt (Bojanowski et al. 2017, fastText); hashing needs no list of words (Weinberger
et al. 2009). training/embedding.py and the engine both read texts by this.
"""

import re
import zlib
from collections import Counter

import numpy as np
import numpy.typing as npt

WORD = re.compile(r"[^\W_]+")
SIZES = (3, 4, 5)
PIECE = 0.3  # what a piece weighs against a whole word
LONGEST_WORD = 40  # a longer one is no word; its pieces would only cost time


def words(text: str) -> list[str]:
    """Runs of letters and digits in lower case, cut where they are too long; a text of signs alone is one word."""
    return [word[:LONGEST_WORD] for word in WORD.findall(text.lower()) or [text]]


def features(tokens: list[str], rows: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """(rows of the table, weights) of a text's words; a feature that occurs n times weighs as much as sqrt(n)."""
    counts: Counter[int] = Counter()
    weights: dict[int, float] = {}
    for word, times in Counter(tokens).items():
        row = zlib.crc32(b"w" + word.encode()) % rows
        counts[row] += times
        weights[row] = 1.0
        framed = f"<{word}>"
        for size in SIZES:
            for at in range(len(framed) - size + 1):
                row = zlib.crc32(b"c" + framed[at : at + size].encode()) % rows
                counts[row] += times
                weights.setdefault(row, PIECE)
    index = np.fromiter(counts, np.int64, len(counts))
    return index, np.array([weights[row] * counts[row] ** 0.5 for row in counts], np.float32)
