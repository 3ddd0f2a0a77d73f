"""`course bench stack`: its goals and tables from recorded figures, its arithmetic, and a short run for real."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from course_lib import ledger, shell
from course_lib.bench import document, goals, stack, stack_index, stack_losses, stack_table, stack_usage
from course_lib.errors import CourseError
from course_lib.steady_load import Sent

RECORDED = Path(__file__).parent / "stack.json"


@pytest.fixture
def found() -> dict[str, Any]:
    """Figures of a whole run."""
    return stack.read(RECORDED)


def test_goals_are_met_by_no_lost_request_and_missed_by_one(found: dict[str, Any]) -> None:
    found["kills"]["lost"] = found["scaling"]["lost"] = 0
    assert {one["met"] for one in goals.stack_goals(found).values()} == {True}
    found["kills"]["lost"] = 1
    found["side_by_side"]["answering"] = 1
    found["start"] = None
    reached = goals.stack_goals(found)
    killed = reached["requests lost while one of three replicas is killed"]
    assert killed == {"value": 1, "goal": "<= 0", "met": False}
    assert reached["stacks of two that answer from their own documents"]["met"] is False
    assert reached["containers that a second `up` replaces"] == {"value": None, "goal": "<= 0", "met": None}
    assert reached["requests lost over 1, 3 and 2 replicas"]["met"] is True


def test_the_section_has_every_part_and_its_figures(found: dict[str, Any], tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- course bench stack: begin -->\nreplaced\n<!-- course bench stack: end -->\nafter\n")
    document.write("stack", stack_table.markdown(found), page)
    text = page.read_text()
    assert "replaced" not in text and text.startswith("before\n") and text.endswith("\nafter\n")
    for title, heads, lines in stack_table.tables(found):
        assert f"**{title}.**" in text
        assert {len(line) for line in lines} == {len(heads)}, title
    assert len(stack_table.tables(found)) == 9
    assert f"| images there, nothing running | {found['start']['cold_s']:.1f} |" in text
    answer = found["rag"]["clients"]["8"]
    assert f"| {answer['answer_p50_ms']:.1f} | {answer['answer_p95_ms']:.1f} | {answer['answer_p99_ms']:.1f} |" in text
    assert f"{found['kills']['streams_cut']} were cut in mid-answer" in text
    lost = found["kills"]["lost"]
    said = "not met" if lost else "met"
    assert f"| requests lost while one of three replicas is killed | <= 0 | {lost} | {said} |" in text
    assert found["revision"] in text and found["machine"]["cpu"] in text


def test_a_busy_machine_is_said_and_what_was_not_measured_is_left_out(found: dict[str, Any]) -> None:
    found |= dict.fromkeys(stack.ALL_PARTS)
    found["goals"] = goals.stack_goals(found)
    found["preliminary"] = True
    text = stack_table.markdown(found)
    assert stack_table.tables(found) == []
    assert "Preliminary" in text and text.count("not measured") == len(found["goals"])
    found["preliminary"] = False
    assert "Preliminary" not in stack_table.markdown(found)


def test_other_files_and_parts_are_refused_in_a_sentence(found: dict[str, Any], tmp_path: Path) -> None:
    other = tmp_path / "other.json"
    for content in ("[]", "{", json.dumps({"bench": "serve"}), json.dumps({"bench": "stack"})):
        other.write_text(content)
        with pytest.raises(CourseError, match=r"holds no figures of `course bench stack`"):
            stack.read(other)
    with pytest.raises(CourseError, match="no part 'kill'") as raised:
        stack.figures(stack.Plan.quick(), only=["kill"])
    assert "kills" in raised.value.do


def test_whole_answers_and_streams_have_their_fates_counted_apart() -> None:
    refused = [Sent(2, 0.3, 404), Sent(3, 0.3, 429, "Too Many Requests"), Sent(4, 9.0, 502, "Bad Gateway")]
    sent = [Sent(0, 0.1, 200), Sent(1, 0.3, 200), *refused, Sent(5, 9.0, 0, "ReadError: ")]
    found = stack_losses.fates(sent)
    assert (found["requests"], found["lost"], found["slowest_ms"]) == (6, 4, 300.0)
    assert found["p99_ms"] == pytest.approx(298, abs=0.1)
    assert found["errors"] == ["0 ReadError: ", "404 ", "429 Too Many Requests", "502 Bad Gateway"]
    assert stack_losses.stream_fates(sent) == {"streams": 6, "streams_cut": 1, "streams_refused": 3}
    with pytest.raises(CourseError, match="no request was answered"):
        stack_losses.fates(sent[2:])


def test_exact_search_finds_the_nearest() -> None:
    chance = np.random.default_rng(442)
    stored = chance.normal(size=(500, 24)).astype(np.float32)
    stored /= np.linalg.norm(stored, axis=1, keepdims=True)
    nearest, seconds = stack_index.exact(stored, stored[:20])
    assert len(seconds) == 20
    for row, best in enumerate(nearest):
        by_sorting = sorted(range(500), key=lambda other: -float(stored[other] @ stored[row]))
        assert best == set(by_sorting[: stack_index.NEAREST]) and row in best


def test_pythons_library_has_enough_paragraphs_and_none_twice() -> None:
    texts = list(stack_index.paragraphs())
    assert len(texts) >= stack.Plan().vectors + stack_index.QUERIES
    assert len(set(texts)) == len(texts) and all(40 < len(text) <= 300 for text in texts)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0B", 0), ("999B", 0.000999), ("1.5kB", 0.0015), ("100MiB ", 104.8576), ("2GiB", 2147.483648)],
)
def test_dockers_sizes_are_read(text: str, expected: float) -> None:
    assert stack_usage.megabytes(text) == pytest.approx(expected)
    with pytest.raises(ValueError, match="no size"):
        stack_usage.megabytes("1.5 kilos")


@pytest.mark.docker
def test_a_quick_run_loses_nothing_and_leaves_nothing(fresh_state: Path, found: dict[str, Any]) -> None:
    said: list[str] = []
    measured = stack.figures(stack.Plan.quick(), only=["door", "kills"], say=said.append)
    mine = f"--filter=label=org.course-lab.session={ledger.Session.current().id}"
    for kind in ("ps --all", "network ls", "volume ls"):
        assert shell.run(["docker", *kind.split(), "--quiet", mine]).output == "", kind
    assert measured["preliminary"] and measured["rag"] is None
    assert measured["kills"]["errors"] == []
    assert measured["goals"]["requests lost while one of three replicas is killed"]["met"]
    assert {run["way"] for run in measured["kills"]["runs"]} == set(stack_losses.WAYS)
    assert all(run["requests"] > 0 for run in measured["kills"]["runs"])
    assert all(measured["door"][f"{way}_p50_ms"] > 0 for way in ("straight", "through"))
    for name in ("door", "kills"):
        assert measured[name].keys() == found[name].keys()
    assert [title for title, _, _ in stack_table.tables(measured)] == ["A replica dies", "The front door, milliseconds"]
