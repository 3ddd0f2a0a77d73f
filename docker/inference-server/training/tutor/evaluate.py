"""Measure an exported folder with onnxruntime, greedily: `python evaluate.py FOLDER` writes FOLDER/evaluation.json."""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Iterable
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

import onnxruntime
from corpus import PASSAGE_HEAD, UNKNOWN, Corpus, digest, load
from runtime import Tutor

RIGHT = 0.9
HONEST = "I don't know"


def similarity(said: str, wanted: str) -> float:
    """Edit similarity, 0 to 1: 1 - Levenshtein distance / length of the longer text."""
    if said == wanted:
        return 1.0
    row = list(range(len(wanted) + 1))
    for i, a in enumerate(said, 1):
        last, row[0] = row[0], i
        for j, b in enumerate(wanted, 1):
            last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (a != b))
    return 1 - row[-1] / max(len(said), len(wanted), 1)


def is_right(said: str, wanted: str) -> bool:
    """Whether an answer counts as the wanted one; a cheap upper bound spares most of the work."""
    return SequenceMatcher(None, said, wanted).real_quick_ratio() >= RIGHT - 0.1 and similarity(said, wanted) >= RIGHT


def share(flags: Iterable[bool]) -> float | None:
    """Share of true values, four places; None without any."""
    flags = list(flags)
    return round(sum(flags) / len(flags), 4) if flags else None


def glossary(tutor: Tutor, corpus: Corpus) -> tuple[dict[str, Any], list[dict[str, str]]]:
    """Held-out paraphrases: right, wrongly unknown, another entry's answer; and the misses themselves."""
    said = [(e, q, tutor.ask(q)) for e in corpus.entries for q in e.heldout]
    right = [is_right(a, e.answer) for e, _, a in said]
    misses = [{"entry": e.id, "question": q, "said": a} for (e, q, a), ok in zip(said, right, strict=True) if not ok]
    figures = {
        "questions": len(said),
        "right": share(right),
        "wrongly_unknown": share(a.startswith(HONEST) for _, _, a in said),
        "verbatim": share(a == e.answer for e, _, a in said),
    }
    return figures, misses


def outside(tutor: Tutor, corpus: Corpus) -> tuple[dict[str, Any], list[dict[str, str]]]:
    """Outside questions, share honestly unknown per kind and of all."""
    said = [(kind, q, tutor.ask(q)) for kind, qs in corpus.outside_test.items() for q in qs]
    figures: dict[str, Any] = {
        "questions": len(said),
        "honest": share(a.startswith(HONEST) for _, _, a in said),
    }
    figures["by_kind"] = {
        kind: {"questions": len(qs), "honest": share(a.startswith(HONEST) for k, _, a in said if k == kind)}
        for kind, qs in corpus.outside_test.items()
    }
    return figures, [{"kind": k, "question": q, "said": a} for k, q, a in said if not a.startswith(HONEST)]


def passages(tutor: Tutor, corpus: Corpus) -> tuple[dict[str, Any], list[dict[str, str]]]:
    """Questions on unseen passages: the right span, exactly or nearly; and, by foreign questions, honesty there."""
    known = [r for r in corpus.readings_test if r.answer != UNKNOWN]
    said = [(r, tutor.ask(r.question, PASSAGE_HEAD + r.passage)) for r in known]
    right = [is_right(a, r.answer) for r, a in said]
    shifted = known[len(known) // 2 :] + known[: len(known) // 2]
    foreign = [tutor.ask(o.question, PASSAGE_HEAD + r.passage) for r, o in zip(known, shifted, strict=True)]
    figures = {
        "questions": len(said),
        "right": share(right),
        "exact": share(a == r.answer for r, a in said),
        "answer_is_in_passage": share(a in r.passage for r, a in said),
        "wrongly_unknown": share(a.startswith(HONEST) for _, a in said),
        "honest_when_the_passage_lacks_it": share(a.startswith(HONEST) for a in foreign),
    }
    misses = [
        {"passage": r.passage, "question": r.question, "wanted": r.answer, "said": a}
        for (r, a), ok in zip(said, right, strict=True)
        if not ok
    ]
    return figures, misses


def main() -> None:
    """Evaluate, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--misses", type=Path, help="also write what went wrong to this JSON file")
    args = parser.parse_args()
    corpus, tutor, started = load(), Tutor(args.folder, threads=2), time.monotonic()
    report: dict[str, Any] = {
        "schema": 1,
        "data_sha256": digest(),
        "model": "onnx/model.onnx (int4)",
        "decoding": "greedy",
    }
    report["rule"] = (
        f'right: 1 - Levenshtein distance / longer length >= {RIGHT} (evaluate.py); honest: begins "{HONEST}"'
    )
    wrong = {}
    for part in (glossary, outside, passages):
        report[part.__name__], wrong[part.__name__] = part(tutor, corpus)
    report["glossary"]["entries"] = len(corpus.entries)
    report["seconds"] = round(time.monotonic() - started, 1)
    report["onnxruntime"], report["python"] = onnxruntime.__version__, platform.python_version()
    training = args.folder / "training.json"
    if training.exists():
        report["trained_on_this_data"] = json.loads(training.read_text(encoding="utf-8"))["data_sha256"] == digest()
    text = json.dumps(report, indent=2)
    (args.folder / "evaluation.json").write_text(text + "\n", encoding="utf-8")
    if args.misses:
        args.misses.write_text(json.dumps(wrong, indent=1) + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
