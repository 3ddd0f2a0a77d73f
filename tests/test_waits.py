"""A wait that runs out explains itself."""

from __future__ import annotations

import pytest

from course_lib import waits
from course_lib.cluster import ApiError


def test_it_returns_what_the_probe_returned() -> None:
    tries: list[int] = []

    def probe() -> str:
        tries.append(1)
        if len(tries) < 3:
            raise waits.NotYet("still starting")
        return "there"

    assert waits.until(probe, what="it", timeout=5, every=0.01) == "there"
    assert len(tries) == 3


def test_running_out_says_what_was_seen_and_what_to_do() -> None:
    def probe() -> None:
        raise waits.NotYet("state: starting")

    with pytest.raises(waits.WaitTimeout) as ran_out:
        waits.until(
            probe, what="the server to answer", timeout=0.05, every=0.01, diagnose=lambda: "last line: boom", do="Look."
        )
    said = str(ran_out.value)
    assert (
        "the server to answer" in said
        and "state: starting" in said
        and "last line: boom" in said
        and "-> Look." in said
    )


def test_another_exception_ends_the_wait_at_once() -> None:
    with pytest.raises(ValueError):
        waits.until(lambda: int("x"), what="it", timeout=60)


def test_an_error_that_passes_is_waited_for_and_another_is_not() -> None:
    answers = [
        ApiError("etcd is busy", status=503),
        ApiError("the server is away"),
        ApiError("there is no pod", status=404),
    ]

    def probe() -> None:
        raise answers.pop(0)

    with pytest.raises(ApiError, match="there is no pod"):
        waits.until(probe, what="it", timeout=60, every=0.01)
    assert answers == []


def test_several_waits_compose_and_name_the_first_that_is_missing() -> None:
    def missing() -> None:
        raise waits.NotYet("the second")

    with pytest.raises(waits.WaitTimeout, match="the second"):
        waits.until(waits.all_of(lambda: 1, missing), what="both", timeout=0.05, every=0.01)
    assert waits.until(waits.all_of(lambda: 1, lambda: 2), what="both", timeout=1) == [1, 2]
