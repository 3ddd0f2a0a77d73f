"""The clients of Prometheus and of the RAG service say what went wrong."""

from __future__ import annotations

import socket

import httpx
import pandas as pd
import pytest

from course_lib.errors import CourseError
from course_lib.stacks import Prometheus, Rag, Stack
from tests.stacks.conftest import DOCUMENT

pytestmark = pytest.mark.docker


@pytest.fixture
def nobody() -> str:
    """An address at which nothing listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


# Prometheus


def test_a_query_is_a_data_frame(course_stack: Stack) -> None:
    found = course_stack.prometheus.query('up{job=~"rag|chroma"}')
    assert set(found["job"]) == {"rag", "chroma"} and list(found.columns)[-1] == "value"
    assert found["value"].dtype == float
    assert course_stack.prometheus.query("1 + 1")["value"].tolist() == [2.0]
    assert course_stack.prometheus.query("no_such_metric").empty


def test_one_value(course_stack: Stack) -> None:
    course_stack.prometheus.wait_for('sum(up{job="rag"}) == 1', timeout=60)  # one slow scrape, and it is 0
    assert course_stack.prometheus.value('sum(up{job="rag"})') == 1
    assert course_stack.prometheus.value("no_such_metric") == 0
    with pytest.raises(CourseError, match=r"up has \d+ values") as failed:
        course_stack.prometheus.value("up")
    assert "sum(" in failed.value.do


def test_a_series_has_a_column_for_each_of_its_lines(course_stack: Stack) -> None:
    course_stack.prometheus.wait_for('count_over_time(up{job="rag"}[1m]) > 2')
    found = course_stack.prometheus.series('up{job=~"rag|prometheus"}', minutes=1)
    assert len(found.columns) == 2 and len(found) > 1
    assert isinstance(found.index, pd.DatetimeIndex) and found.index.is_monotonic_increasing


@pytest.mark.parametrize(("expression", "words"), [("sum(", "unclosed"), ("up{job=rag}", "expected string"), ("", "")])
def test_an_expression_that_is_wrong(course_stack: Stack, expression: str, words: str) -> None:
    for ask in (course_stack.prometheus.query, course_stack.prometheus.value, course_stack.prometheus.series):
        with pytest.raises(CourseError, match="can't evaluate") as failed:
            ask(expression)
        assert words in failed.value.why and failed.value.why and failed.value.do


def test_what_never_becomes_true(course_stack: Stack) -> None:
    with pytest.raises(CourseError, match="waited 1 s for Prometheus to find up > 7"):
        course_stack.prometheus.wait_for("up > 7", timeout=1)


def test_prometheus_that_is_not_there(nobody: str) -> None:
    with pytest.raises(CourseError, match="Prometheus does not answer") as failed:
        Prometheus(f"http://{nobody}").query("up")
    assert failed.value.why and "running" in failed.value.do


def test_something_else_at_prometheus_address(course_stack: Stack) -> None:
    other = Prometheus(f"http://127.0.0.1:{course_stack.port('traces', 4318)}")
    with pytest.raises(CourseError, match="Prometheus answered 404"):
        other.query("up")


def test_a_port_that_is_not_published(course_stack: Stack) -> None:
    with pytest.raises(CourseError, match="port 8000 of chroma is not published"):
        course_stack.port("chroma", 8000)


# RAG


def test_documents_come_and_go(course_stack: Stack) -> None:
    rag = course_stack.rag
    assert rag.put("test/ports.md", "# Ports\n\nA port is a number behind an address.\n") == 1
    assert rag.documents()["test/ports.md"] == 1
    (found, *_) = rag.search("What is a port?", k=1)
    assert found.source == "test/ports.md" and "a number behind an address" in found.text and found.heading == "Ports"
    rag.put("test/ports.md", "# Ports\n\nA port is where a ship lands.\n")
    assert "ship" in rag.search("What is a port?", k=1)[0].text, "it takes the place of the earlier one"
    rag.delete("test/ports.md")
    assert "test/ports.md" not in rag.documents()
    with pytest.raises(CourseError, match="404") as failed:
        rag.delete("test/ports.md")
    assert "test/ports.md" in failed.value.why


@pytest.mark.parametrize(("source", "text"), [("", "text"), ("a.md", ""), ("a.md", "   \n"), ("x" * 2000, "text")])
def test_a_document_that_is_none_is_refused(course_stack: Stack, source: str, text: str) -> None:
    before = course_stack.rag.documents()
    with pytest.raises(CourseError, match="answered 4") as failed:
        course_stack.rag.put(source, text)
    assert failed.value.why and course_stack.rag.documents() == before


@pytest.mark.parametrize(("question", "k"), [("", 3), ("What?", 0), ("What?", 10_000), ("x" * 100_000, 3)])
def test_a_question_that_is_none_is_refused(course_stack: Stack, question: str, k: int) -> None:
    with pytest.raises(CourseError, match="answered 4") as failed:
        course_stack.rag.answer(question, k=k)
    assert failed.value.why


def test_nothing_stored(course_stack: Stack) -> None:
    for source in course_stack.rag.documents():
        course_stack.rag.delete(source)
    try:
        with pytest.raises(CourseError) as failed:
            course_stack.rag.answer("What is a named volume?")
        assert "no documents" in failed.value.why.lower()
    finally:
        course_stack.rag.put(*DOCUMENT)


def test_the_front_door_is_closed(nobody: str) -> None:
    with pytest.raises(CourseError, match="front door did not answer") as failed:
        Rag(httpx.Client(base_url=f"https://{nobody}", trust_env=False)).documents()
    assert "refused" in failed.value.why and "proxy" in failed.value.do


def test_rag_is_down_behind_the_front_door(course_stack: Stack) -> None:
    """nginx says so at once, in its own words."""
    course_stack.stop("rag")
    try:
        with pytest.raises(CourseError, match=r"answered 50[24]"):
            course_stack.rag.documents()
    finally:
        course_stack.start("rag")
