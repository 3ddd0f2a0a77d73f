"""Users: a steady load of rows whose right answers are known, so that afterwards every request can be accounted for."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from course_lib.cluster import serving
from course_lib.cluster.deployer import Deployer
from course_lib.cluster.strategies.marks import MODEL, Row
from course_lib.errors import CourseError
from course_lib.lab.steps import record
from course_lib.steady_load import Sent, SteadyLoad


@dataclass(frozen=True)
class Users:
    """Who asks what. Each request's row is drawn by its number, so one knows later what was asked.

    Args:
        rows: what is drawn from, with its right answers.
        users: how many take turns; with 0 each request is a user of its own.
    """

    rows: Sequence[Row]
    users: int = 0
    seed: int = 441

    def row(self, number: int) -> Row:
        """What the nth request asks."""
        return self.rows[random.Random(self.seed * 1_000_003 + number).randrange(len(self.rows))]

    def user(self, number: int) -> str:
        """Who sends the nth request."""
        return f"user-{number % self.users if self.users else number}"

    def __call__(self, number: int) -> tuple[Mapping[str, Any], Mapping[str, str]]:
        """The body and further headers of the nth request."""
        return {"inputs": list(self.row(number)[0]), "model": MODEL}, {"X-User-Id": self.user(number)}


class UserLoad(SteadyLoad):
    """Users who ask at a steady rate, each request on a connection of its own."""

    def __init__(self, deployer: Deployer, address: str, users: Users, *, rate: float) -> None:
        self.users = users
        super().__init__(
            f"{address}/predict", users, rate=rate, headers=serving.headers(deployer), timeout=20, keep_answers=True,
            keep_alive=False,
        )  # fmt: skip

    def right(self, one: Sent) -> bool:
        """Whether an answer is the right one."""
        if one.status != 200:
            return False
        return bool(json.loads(one.answer).get("predicted_class") == self.users.row(one.number)[1])


@dataclass(frozen=True)
class Account:
    """What became of all requests that one version answered; or, without a version, of the others."""

    version: str
    requests: int
    right: int
    wrong: int
    failed: int
    """Answered with another status than 200."""
    lost: int
    """Not answered at all."""


def accounts(load: UserLoad) -> list[Account]:
    """Each request in exactly one place, by the version that answered."""
    found: dict[str, list[Sent]] = {}
    for one in load.sent:
        found.setdefault(one.version, []).append(one)
    rows = []
    for version, each in sorted(found.items()):
        right = sum(load.right(one) for one in each)
        lost = sum(one.status == 0 for one in each)
        failed = sum(one.status not in (0, 200) for one in each)
        rows.append(Account(version, len(each), right, len(each) - right - failed - lost, failed, lost))
    return rows


def require_accounted(load: UserLoad, *, failed: int = 0) -> list[dict[str, object]]:
    """After a load has ended: every request that began has one end, and none was lost; returns a table of it.

    Args:
        failed: how many may have been refused or failed by a version that does so: a canary's part, say.

    Raises:
        CourseError: a request has no end or two, one was lost, or more have failed.
    """
    numbers = sorted(one.number for one in load.sent)
    if numbers != list(range(len(numbers))):
        raise CourseError(f"of {numbers[-1] + 1} requests {len(set(numbers))} came to an end")
    found = accounts(load)
    lost, refused = sum(one.lost for one in found), sum(one.failed for one in found)
    if lost or refused > failed:
        first = next(one for one in load.sent if one.status != 200 and (not lost or one.status == 0))
        raise CourseError(
            f"of {len(numbers)} requests {lost} were lost and {refused} failed",
            why=f"The first at {first.began:.1f} s: {first.status or ''} {first.error}",
            do="At most " + (f"{failed} may fail, and none be lost." if failed else "none."),
        )
    record("load.accounted", "http", load.url, sent=len(numbers), lost=lost, by_version=[vars(one) for one in found])
    return [
        {
            "answered by version": one.version or "none", "requests": one.requests, "right": one.right,
            "wrong": one.wrong, "failed": one.failed, "lost": one.lost,
        }
        for one in found
    ]  # fmt: skip


def require_unseen(load: UserLoad, versions: Sequence[str]) -> None:
    """Every answer that a user got came from one of these versions.

    Raises:
        CourseError: another one was heard, or nobody was.
    """
    heard = {one.version for one in load.sent if one.status == 200}
    if not heard or heard - set(versions):
        raise CourseError(f"users heard versions {sorted(heard)}, and should have heard {sorted(versions)} only")
    record("shadow.unseen", "http", load.url, heard=sorted(heard), answers=len(load.sent))
