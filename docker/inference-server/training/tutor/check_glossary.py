"""Check the tutor's glossary: `python check_glossary.py` prints file, id and why for each fault.

The model is judged by questions that it has not seen. That judgement is worth something only
while the held-out questions stay away from the training questions, so this is checked for every
pair and not only within one entry. Exits 1 when anything is wrong, 0 otherwise.
"""

from __future__ import annotations

import re
import string
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import yaml

GLOSSARY = Path(__file__).parent / "glossary"
KEBAB = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
MARKDOWN = re.compile(r"[`*\[\]<>|]|__|^#|^- |\n")
TRAINING_COUNT = range(20, 31)
HELDOUT_COUNT = 3
ANSWER_WORDS = range(12, 33)
MAX_JACCARD = 0.6
OPENING_WORDS = 5
# Words that hold a question together and say nothing of its subject.
FILLER_TEXT = (
    "a an and are at be by can could did do does explain for from get has have how i in into is it "
    "its make me mean meaning my not of on one or out should so tell than that the them then there "
    "these they this to use used want was what when where which who why will with without would you "
    "your "
)
FILLER = frozenset(FILLER_TEXT.split())

TokenSets = tuple[frozenset[str], frozenset[str]]


@dataclass
class Entry:
    """One answer with the questions that lead to it; `file` is the topic's file name."""

    file: str
    id: str
    answer: str
    questions: list[str]
    heldout: list[str]
    faults: list[str] = field(default_factory=list)


def token_sets(text: str) -> TokenSets:
    """Words of `text`, once with hyphenated words in parts and once with them joined.

    Both readings of "punctuation stripped" are common; a pair has to pass under each.
    """
    lowered = text.lower()
    parts = frozenset(re.findall(r"[a-z0-9]+", lowered.replace("'", "")))
    joined = (word.translate(str.maketrans("", "", string.punctuation)) for word in lowered.split())
    return parts, frozenset(word for word in joined if word)


def jaccard(left: TokenSets, right: TokenSets) -> float:
    """Largest |A and B| / |A or B| over the readings of `token_sets`, 0.0 to 1.0."""
    return max(len(a & b) / len(a | b) if a | b else 0.0 for a, b in zip(left, right, strict=True))


def read_entries(folder: Path) -> tuple[list[Entry], list[str]]:
    """All entries of the folder's YAML files, and faults of the files themselves."""
    entries: list[Entry] = []
    faults: list[str] = []
    for path in sorted(folder.glob("*.yaml")):
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
            if content["topic"] != path.stem:
                faults.append(f"{path.name}: topic is {content['topic']!r}, not the file's name")
            for raw in content["entries"]:
                lists = [raw["questions"], raw["heldout"]]
                texts = [raw["id"], raw["answer"], *lists[0], *lists[1]]
                wrong = [text for text in texts if not isinstance(text, str)]
                if wrong:
                    faults.append(f"{path.name}: {raw['id']}: not a string: {wrong}")
                    continue
                entries.append(Entry(path.name, raw["id"], raw["answer"], *lists))
        except (yaml.YAMLError, KeyError, TypeError) as error:
            faults.append(f"{path.name}: cannot be read as a topic: {error!r}")
    if not entries:
        faults.append(f"{folder.name}: no entries found")
    return entries, faults


def check_one(entry: Entry) -> None:
    """Faults that an entry has by itself: counts, lengths, characters."""
    say = entry.faults.append
    if not KEBAB.fullmatch(entry.id):
        say("id is not kebab-case")
    if len(entry.questions) not in TRAINING_COUNT:
        say(f"{len(entry.questions)} training questions, expected 9 to 11")
    if len(entry.heldout) != HELDOUT_COUNT:
        say(f"{len(entry.heldout)} held-out questions, expected {HELDOUT_COUNT}")
    words = len(entry.answer.split())
    if words not in ANSWER_WORDS:
        say(f"answer has {words} words, expected 12 to 32")
    if MARKDOWN.search(entry.answer):
        say("answer holds markdown or a line break")
    if not entry.answer.endswith("."):
        say("answer does not end with a full stop")
    for text in (entry.answer, *entry.questions, *entry.heldout):
        if not text.isascii():
            say(f"not ASCII: {text!r}")
        if text != " ".join(text.split()):
            say(f"stray white space: {text!r}")


def check_together(entries: list[Entry]) -> None:
    """Faults between entries: doubled ids, questions and openings; held-out too close to training."""
    id_count = Counter(entry.id for entry in entries)
    openings: dict[str, str] = {}
    asked: dict[str, str] = {}
    training: list[tuple[TokenSets, str, str]] = []
    for entry in entries:
        if id_count[entry.id] > 1:
            entry.faults.append("id is used more than once")
        opening = " ".join(entry.answer.lower().split()[:OPENING_WORDS])
        if opening in openings:
            entry.faults.append(f"answer begins like that of {openings[opening]}: {opening!r}")
        openings[opening] = entry.id
        for question in (*entry.questions, *entry.heldout):
            key = " ".join(re.findall(r"[a-z0-9]+", question.lower()))
            if asked.setdefault(key, entry.id) != entry.id:
                entry.faults.append(f"question is also asked in {asked[key]}: {question!r}")
        if len(set(entry.questions)) != len(entry.questions):
            entry.faults.append("a training question stands twice")
        training += [(token_sets(text), text, entry.id) for text in entry.questions]
    for entry in entries:
        own_words = frozenset[str]().union(*(token_sets(text)[0] for text in entry.questions)) - FILLER
        for question in entry.heldout:
            tokens = token_sets(question)
            if not tokens[0] & own_words:
                entry.faults.append(f"held-out question shares no term with its training: {question!r}")
            value, near, owner = max((jaccard(tokens, other), text, at) for other, text, at in training)
            if value > MAX_JACCARD:
                entry.faults.append(f"held-out {question!r} is {value:.2f} from {owner}: {near!r}")


def main() -> int:
    """Check the glossary beside this file and print what is wrong with it."""
    entries, faults = read_entries(GLOSSARY)
    for entry in entries:
        check_one(entry)
    check_together(entries)
    faults += [f"{entry.file}: {entry.id}: {why}" for entry in entries for why in entry.faults]
    for fault in faults:
        print(fault)
    questions = sum(len(entry.questions) for entry in entries)
    heldout = sum(len(entry.heldout) for entry in entries)
    print(f"{len(entries)} entries, {questions} training and {heldout} held-out questions, {len(faults)} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
