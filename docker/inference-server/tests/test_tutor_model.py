"""The committed course tutor: its text keeps the held-out rule, its files keep their size, and its figures are no older than its text.

The model is run here with onnxruntime on a seeded sample; training itself (torch) is not needed.
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path
from typing import Any

import pytest

SERVER = Path(__file__).resolve().parents[1]
FOLDERS = [SERVER / "models" / "tutor" / version for version in ("1", "2")]
TRAINING = SERVER / "training" / "tutor"
sys.path.insert(0, str(TRAINING))

import check_glossary  # noqa: E402
from corpus import PASSAGE_HEAD, UNKNOWN, Corpus, digest, load  # noqa: E402
from evaluate import HONEST, is_right  # noqa: E402
from runtime import Tutor  # noqa: E402

SAMPLE = 60
SLACK = 0.08
MIB = 1024 * 1024


@pytest.fixture(scope="module", params=FOLDERS, ids=lambda folder: f"version-{folder.name}")
def folder(request: pytest.FixtureRequest) -> Path:
    """One version of the tutor after the other."""
    found: Path = request.param
    return found


def figures(folder: Path) -> dict[str, Any]:
    data: dict[str, Any] = json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))
    return data


@pytest.fixture(scope="module")
def report(folder: Path) -> dict[str, Any]:
    """The figures that were measured when the model was made."""
    return figures(folder)


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    """The committed text."""
    return load()


@pytest.fixture(scope="module")
def tutor(folder: Path) -> Tutor:
    """The committed model in onnxruntime."""
    return Tutor(folder, threads=2)


def test_glossary_keeps_its_rules(capsys: pytest.CaptureFixture[str]) -> None:
    """Counts, lengths, ASCII, unique ids, and Jaccard at most 0.6 from each held-out to each training question."""
    assert check_glossary.MAX_JACCARD <= 0.6
    assert check_glossary.main() == 0, capsys.readouterr().out


def test_there_is_enough_text(corpus: Corpus) -> None:
    """As many entries, held-out and outside questions as were promised; no outside question was trained on."""
    assert len(corpus.entries) >= 250
    assert all(len(e.heldout) >= 2 for e in corpus.entries)
    assert set(corpus.outside_test) == {"nearby", "general", "nonsense"}
    assert sum(map(len, corpus.outside_test.values())) >= 100
    trained = {q.lower() for qs in corpus.outside_train.values() for q in qs} | {
        q.lower() for e in corpus.entries for q in e.questions
    }
    assert not [q for qs in corpus.outside_test.values() for q in qs if q.lower() in trained]


def test_passages_hold_their_answers(corpus: Corpus) -> None:
    """Every wanted answer is a span of its passage, and no test passage was trained on."""
    for reading in (*corpus.readings_train, *corpus.readings_test):
        assert reading.answer in reading.passage, reading
    assert corpus.readings_test
    assert not {r.passage for r in corpus.readings_train} & {r.passage for r in corpus.readings_test}


def test_sizes(folder: Path) -> None:
    """int4 in one file of at most 8 MB; bf16 weights of about that size."""
    assert [p.name for p in (folder / "onnx").iterdir() if ".onnx" in p.name] == ["model.onnx"]
    assert (folder / "onnx" / "model.onnx").stat().st_size <= 8 * MIB
    assert (folder / "model.safetensors").stat().st_size <= 12 * MIB


def test_files_name_no_machine(folder: Path) -> None:
    """Neither JSON nor ONNX holds a path of the machine that made them."""
    for path in folder.rglob("*"):
        if path.is_file():
            raw = path.read_bytes()
            for trace in (b"/tmp/", b"/root/", b"/home/", b"_name_or_path"):
                assert trace not in raw, f"{trace!r} in {path.name}"


def test_figures_belong_to_this_text(report: dict[str, Any]) -> None:
    """Text that was changed after the figures were measured shows here: train or evaluate again."""
    assert report["data_sha256"] == digest()


def test_version_2_was_trained_on_all_of_it_and_is_better() -> None:
    first, second = map(figures, FOLDERS)
    assert second["trained_on_this_data"] is True
    assert second["glossary"]["right"] >= first["glossary"]["right"] + 0.1
    assert second["outside"]["honest"] >= first["outside"]["honest"]


@pytest.mark.xfail(strict=True, reason="90 % right is not reached by version 2: its model card says what was measured")
def test_goals() -> None:
    """What was aimed at for the version that answers by default, in the figures of the whole sets."""
    report = figures(FOLDERS[-1])
    assert report["glossary"]["right"] >= 0.9
    assert report["outside"]["honest"] >= 0.8
    assert set(report["outside"]["by_kind"]) == {"nearby", "general", "nonsense"}


def test_heldout_sample(tutor: Tutor, corpus: Corpus, report: dict[str, Any]) -> None:
    """Paraphrases that were never trained on, in a seeded sample: about as often right as the report says."""
    pairs = [(q, e.answer) for e in corpus.entries for q in e.heldout]
    sample = random.Random(1).sample(pairs, SAMPLE)
    right = [is_right(tutor.ask(q), answer) for q, answer in sample]
    assert sum(right) / SAMPLE >= report["glossary"]["right"] - SLACK


def test_outside_sample(tutor: Tutor, corpus: Corpus, report: dict[str, Any]) -> None:
    """Outside questions of all kinds: about as often an honest "I don't know" as the report says."""
    questions = [q for qs in corpus.outside_test.values() for q in qs]
    honest = [tutor.ask(q).startswith(HONEST) for q in random.Random(2).sample(questions, SAMPLE)]
    assert sum(honest) / SAMPLE >= report["outside"]["honest"] - SLACK


def test_passage_sample(tutor: Tutor, corpus: Corpus, report: dict[str, Any]) -> None:
    """Unseen passages: about as often the right span as the report says."""
    size = min(SAMPLE, len(corpus.readings_test))
    sample = random.Random(3).sample(corpus.readings_test, size)
    right = [is_right(tutor.ask(r.question, PASSAGE_HEAD + r.passage), r.answer) for r in sample]
    assert sum(right) / size >= report["passages"]["right"] - 1.5 * SLACK


def test_an_answer_comes_from_the_weights(tutor: Tutor, corpus: Corpus) -> None:
    """Earlier turns do not change the last answer's subject, and the honest sentence is the fixed one."""
    entry = corpus.entries[0]
    turns = [
        {"role": "user", "content": "Who wrote Hamlet?"},
        {"role": "assistant", "content": UNKNOWN},
        {"role": "user", "content": entry.questions[0]},
    ]
    assert is_right(tutor.answer(turns), entry.answer)
    assert tutor.ask("What is the capital of Australia?") == UNKNOWN
