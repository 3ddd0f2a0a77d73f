"""The tutor's text: glossary entries, outside questions and passages, read from YAML, and the digest that names them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).resolve().parent
UNKNOWN = (
    "I don't know: I only answer about this course (Docker, Compose, SageMaker, Vertex AI, Kubernetes, demos) "
    "or about a passage that you give me."
)
PASSAGE_HEAD = "Answer from this passage:\n"


@dataclass(frozen=True)
class Entry:
    """One glossary entry: training questions, held-out questions and the answer that all of them want."""

    id: str
    topic: str
    answer: str
    questions: tuple[str, ...]
    heldout: tuple[str, ...]


@dataclass(frozen=True)
class Reading:
    """A passage with a question; ``answer`` is a span of the passage, or UNKNOWN where the passage lacks it."""

    passage: str
    question: str
    answer: str


@dataclass(frozen=True)
class Corpus:
    """Everything that people wrote for the tutor; ``outside`` maps a kind to its questions."""

    entries: tuple[Entry, ...]
    outside_train: dict[str, tuple[str, ...]] = field(default_factory=dict)
    outside_test: dict[str, tuple[str, ...]] = field(default_factory=dict)
    readings_train: tuple[Reading, ...] = ()
    readings_test: tuple[Reading, ...] = ()


def yaml_files() -> list[Path]:
    """All text files that training or evaluation reads, in a stable order."""
    names = ("outside.yaml", "outside_train.yaml", "passages.yaml")
    return sorted((HERE / "glossary").glob("*.yaml")) + [HERE / n for n in names if (HERE / n).exists()]


def digest() -> str:
    """SHA-256 over the names and contents of the YAML files: which text a model or a figure belongs to."""
    sha = hashlib.sha256()
    for path in yaml_files():
        sha.update(path.relative_to(HERE).as_posix().encode() + b"\0")
        sha.update(path.read_bytes().replace(b"\r\n", b"\n") + b"\0")
    return sha.hexdigest()


def _read(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8")) if path.exists() else None


def load() -> Corpus:
    """Read all YAML files; outside and passage files that do not exist count as empty."""
    entries = []
    for path in sorted((HERE / "glossary").glob("*.yaml")):
        data = _read(path)
        for e in data["entries"]:
            wrong = [t for t in (e["answer"], *e["questions"], *e["heldout"]) if not isinstance(t, str)]
            if wrong:
                raise ValueError(
                    f"{path.name}: {e['id']}: put quotes around {wrong[0]!r}, YAML does not read it as text"
                )
            entries.append(
                Entry(e["id"], data["topic"], e["answer"].strip(), tuple(e["questions"]), tuple(e["heldout"]))
            )
    readings: dict[str, list[Reading]] = {"train": [], "test": []}
    for item in _read(HERE / "passages.yaml") or []:
        for pair in item["qa"]:
            readings[item["split"]].append(Reading(item["passage"].strip(), str(pair["q"]), str(pair["a"])))
    return Corpus(
        entries=tuple(entries),
        outside_train={k: tuple(map(str, v)) for k, v in (_read(HERE / "outside_train.yaml") or {}).items()},
        outside_test={k: tuple(map(str, v)) for k, v in (_read(HERE / "outside.yaml") or {}).items()},
        readings_train=tuple(readings["train"]),
        readings_test=tuple(readings["test"]),
    )
