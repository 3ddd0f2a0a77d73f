"""Rows come before things, and a session is told from another that gets its process number."""

from __future__ import annotations

import os
import time
from pathlib import Path

import psutil

from course_lib import ledger
from course_lib.ledger import Session
from course_lib.settings import CHECKOUT


def test_a_row_is_there_until_it_is_struck(fresh_state: Path) -> None:
    ledger.write_down("image", "some:1", "kept")
    (row,) = ledger.rows()
    assert (row.kind, row.name, row.lifetime, row.checkout) == ("image", "some:1", "kept", str(CHECKOUT))
    assert row.session == Session.current()
    ledger.strike("image", "some:1")
    assert ledger.rows() == []


def test_a_session_is_its_process_and_no_later_one() -> None:
    now = Session.current()
    assert now.alive and Session.parse(now.id) == now
    assert not Session(now.pid, now.born + "0").alive
    assert not Session.of(2**22 + 1).alive


def test_a_zombie_is_not_alive() -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    try:
        while psutil.Process(child).status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.01)
        assert not Session.of(child).alive
    finally:
        os.waitpid(child, 0)


def test_labels_say_whose_and_how_long(fresh_state: Path) -> None:
    found = ledger.labels()
    assert found["org.course-lab.lifetime"] == "run" and found["org.course-lab.session"] == Session.current().id
