"""What lab 4.4.5's checks make of figures: of answers, of replicas that were wanted, of what was used."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
import pytest

from course_lib.exercises import cluster_hold as hold
from course_lib.exercises import cluster_load as loads
from course_lib.exercises import cluster_right_size as right
from course_lib.lab.exercise import NotYet
from course_lib.steady_load import Sent


def sent(*statuses: int) -> list[Sent]:
    return [
        Sent(number, 0.1 * (number + 1), status, "" if status else "ConnectError: refused")
        for number, status in enumerate(statuses)
    ]


def test_a_request_that_was_refused_takes_for_ever() -> None:
    assert loads.quantile(sent(*[200] * 20), 0.95) == pytest.approx(1.9)
    assert loads.quantile(sent(429, *[200] * 19), 0.95) == pytest.approx(2.0)
    assert loads.quantile(sent(429, 0, *[200] * 18), 0.95) == math.inf
    assert loads.quantile([], 0.5) == math.inf


def test_the_unanswered_are_told_by_what_became_of_them() -> None:
    assert loads.unanswered(sent(200, 200)) == ""
    assert loads.unanswered(sent(200, 429, 429, 0)) == (
        "2 refused (429, the queue is full), 1 without an answer (ConnectError)"
    )


@pytest.mark.parametrize("wanted", [[], [0, 0, 1, 1, 3, 3], [1, 2, 3]])
def test_more_and_more_replicas_are_no_flapping(wanted: list[int]) -> None:
    hold.require_no_flapping(wanted)


def test_replicas_that_are_taken_away_under_load_are_flapping() -> None:
    with pytest.raises(NotYet, match="went from 3 to 2 replicas, then from 3 to 1 replicas"):
        hold.require_no_flapping([1, 3, 2, 2, 3, 1])


#: 150m and 160 MiB under load, as lab 4.4.5 measures it.
MEASURED = right.Measured(
    pd.DataFrame(
        {
            "at": [-10.0, 5.0, 25.0, 40.0],
            "cpu": [0.01, 0.08, 0.14, 0.15],
            "memory": [140 * 2**20, 150 * 2**20, 155 * 2**20, 160 * 2**20],
        }
    ),
    within=0.03,
)
RIGHT = {"requests": {"cpu": "180m", "memory": "192Mi"}, "limits": {"cpu": "400m", "memory": "256Mi"}}


def test_only_rows_of_nothing_but_load_count() -> None:
    assert (MEASURED.cpu, MEASURED.memory) == (0.15, 160 * 2**20)


@pytest.mark.parametrize(
    ("which", "resource", "amount", "words"),
    [
        ("requests", "cpu", "130m", "no less than is used"),
        ("requests", "cpu", "310m", "at most 2 times as much"),
        ("requests", "memory", "140Mi", "no less than is used"),
        ("requests", "memory", "330Mi", "at most 2 times as much"),
        ("limits", "cpu", "220m", "a mean of 15 s hides its peaks"),
        ("limits", "memory", "170Mi", "one byte more"),
        ("limits", "memory", "490Mi", "a leak should meet it"),
    ],
)
def test_sizes_have_their_bands(which: str, resource: str, amount: str, words: str) -> None:
    right.require_bands(right.amounts(RIGHT), MEASURED)
    wrong = {**RIGHT, which: {**RIGHT[which], resource: amount}}
    with pytest.raises(NotYet) as refused:
        right.require_bands(right.amounts(wrong), MEASURED)
    assert words in refused.value.expected and amount in refused.value.seen


@pytest.mark.parametrize("answer", [None, {}, "200m", {"requests": {"cpu": "x"}}, {**RIGHT, "limits": {"cpu": "1"}}])
def test_what_is_no_size_is_an_answer_and_no_traceback(answer: Any) -> None:
    with pytest.raises(NotYet):
        right.amounts(answer)
