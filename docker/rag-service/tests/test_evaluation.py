"""The questions and the documents they are asked of: each phrase stands in its page, the pages are the glossary's, the figures come out."""

import sys
from pathlib import Path

import pytest
import yaml
from conftest import CHECKOUT, ROOT, Rag, run
from rag_service.errors import StartError
from rag_service.evaluate import plain, read_questions

sys.path.insert(0, str(ROOT / "evaluation"))
import glossary

FILE = ROOT / "evaluation" / "questions.yaml"
QUESTIONS = read_questions(FILE)


def test_the_pages_are_what_the_glossary_says() -> None:
    """Else: python docker/rag-service/evaluation/glossary.py."""
    written = {page.name: page.read_text(encoding="utf-8") for page in glossary.DOCUMENTS.iterdir()}
    assert written == glossary.pages()


def test_every_phrase_stands_in_its_page() -> None:
    for each in QUESTIONS:
        if each.source:
            assert plain(each.phrase) in plain((CHECKOUT / each.source).read_text(encoding="utf-8")), each.question
            assert len(each.phrase) >= 15, each.question


def test_there_are_enough_of_each_kind() -> None:
    kinds = {
        group: [each for each in QUESTIONS if each.group == group] for group in ("glossary", "documents", "outside")
    }
    assert len(kinds["glossary"]) >= 90
    assert len(kinds["documents"]) >= 40
    assert len(kinds["outside"]) >= 20
    assert len({each.source for each in kinds["glossary"]}) == 30
    assert len({each.source for each in kinds["documents"]}) == 7
    assert len({each.question for each in QUESTIONS}) == len(QUESTIONS)
    assert not any(each.source or each.phrase for each in kinds["outside"])


def test_glossary_questions_were_held_out() -> None:
    """Neither the tutor nor the embedder was trained on them."""
    entries = [
        entry
        for page in sorted(glossary.GLOSSARY.glob("*.yaml"))
        for entry in yaml.safe_load(page.read_text(encoding="utf-8"))["entries"]
    ]
    held_out = {(question, entry["answer"]) for entry in entries for question in entry["heldout"]}
    trained = {question for entry in entries for question in entry["questions"]}
    for each in QUESTIONS:
        if each.group == "glossary":
            assert (each.question, each.phrase) in held_out
            assert each.question not in trained


@pytest.mark.parametrize(
    ("name", "text"),
    [("broken", "a: ["), ("list", "- a"), ("field", "a:\n- {question: x, page: y}"), ("nothing", None)],
)
def test_a_file_that_is_none(tmp_path: Path, name: str, text: str | None) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(StartError, match=r"is no file of questions|can't be read"):
        read_questions(tmp_path / name)


def test_the_figures_are_those_of_the_readme(fresh: Rag) -> None:
    """Recall and answers repeat exactly, but the pages grow: as they do, the questions about them may be found a little worse."""
    pages = [
        *glossary.DOCUMENTS.iterdir(),
        *{CHECKOUT / each.source for each in QUESTIONS if each.group == "documents"},
    ]
    sent = run("ingest", "--url", fresh.url, "--root", str(CHECKOUT), *map(str, pages))
    assert (sent.returncode, sent.stderr) == (0, "")
    done = run("evaluate", str(FILE), "--url", fresh.url)
    assert (done.returncode, done.stderr) == (0, "")
    readme = _columns((ROOT / "README.md").read_text(encoding="utf-8"))
    measured = _columns(done.stdout)
    for name in ("recall@1", "recall@3", "right", "by model", "by quote", "by none"):
        glossary_column, documents_column, *outside_column = zip(measured[name], readme[name], strict=True)
        assert glossary_column[0] == pytest.approx(glossary_column[1], abs=0.03), name
        assert documents_column[0] == pytest.approx(documents_column[1], abs=0.15), name
        assert all(now == pytest.approx(then, abs=0.11) for now, then in outside_column), name
    assert measured["total p95 s"] > measured["total p50 s"] > [0.0]


def _columns(text: str) -> dict[str, list[float]]:
    """The rows of a table of `evaluate`: name to its figures."""
    rows = (
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith(("| recall", "| right", "| by ", "| total"))
    )
    return {row[0]: [float(cell) for cell in row[1:] if cell] for row in rows}


def test_what_stops_ingest_and_evaluate(tmp_path: Path, fresh: Rag) -> None:
    page = tmp_path / "page.md"
    page.write_bytes(b"\xff\xfe\x00")
    for arguments, said in (
        (("ingest", str(page), "--root", str(tmp_path), "--url", fresh.url), "is not text in UTF-8"),
        (("ingest", str(page), "--root", str(ROOT), "--url", fresh.url), "set --root"),
        (("ingest", str(tmp_path / "none.md"), "--root", str(tmp_path), "--url", fresh.url), "can't be read"),
        (("evaluate", str(FILE), "--url", "http://127.0.0.1:9"), "start the service, or set --url"),
        (("evaluate", str(FILE), "--url", fresh.url), "There are no documents to answer from"),
    ):
        done = run(*arguments)
        assert (done.returncode, said in done.stderr) == (1, True), (arguments, done.stderr)
        assert "Traceback" not in done.stderr
