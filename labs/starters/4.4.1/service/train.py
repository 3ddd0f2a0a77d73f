"""Trains the ticket router: tries settings by cross-validation (a few seconds), then fits all data with the best one.

python3 train.py [--data data/tickets.tsv] [--out model.json] [--smoothing 0.1 --longest 4]
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
from pathlib import Path

from router import Router

HERE = Path(__file__).resolve().parent
FOLDS = 8


def examples(path: Path) -> list[tuple[str, str]]:
    """(label, text) of every line."""
    pairs = [line.split("\t", 1) for line in path.read_text().splitlines() if line]
    shuffled = [(label, text) for label, text in pairs]
    random.Random(4).shuffle(shuffled)  # the file may be sorted by label: no fold of it must miss one
    return shuffled


def right(data: list[tuple[str, str]], longest: int, smoothing: float) -> float:
    """The share of questions that a router gets right which has not seen them."""
    hits = 0
    for fold in range(FOLDS):
        held_out = data[fold::FOLDS]
        rest = [pair for place, pair in enumerate(data) if place % FOLDS != fold]
        router = Router.fit(rest, longest=longest, smoothing=smoothing)
        hits += sum(router.route(text)[0] == label for label, text in held_out)
    return hits / len(data)


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__)
    ask.add_argument("--data", type=Path, default=HERE / "data" / "tickets.tsv")
    ask.add_argument("--out", type=Path, default=Path(os.environ.get("MODEL_PATH", HERE / "model.json")))
    ask.add_argument("--longest", type=int, help="skip the search: longest piece of a word")
    ask.add_argument("--smoothing", type=float, help="skip the search: smoothing")
    given = ask.parse_args()
    data = examples(given.data)
    longest, smoothing = given.longest, given.smoothing
    if longest is None or smoothing is None:
        tried = {pair: right(data, *pair) for pair in itertools.product((3, 4, 5, 6), (0.01, 0.03, 0.1, 0.3, 1.0))}
        longest, smoothing = max(tried, key=lambda pair: tried[pair])
        print(f"best of {len(tried)}: longest piece {longest}, smoothing {smoothing}, {tried[longest, smoothing]:.0%} right", flush=True)
    Router.fit(data, longest=longest, smoothing=smoothing).save(given.out)
    print(f"{given.out}: {given.out.stat().st_size / 1e6:.1f} MB from {len(data)} questions", flush=True)


if __name__ == "__main__":
    main()
