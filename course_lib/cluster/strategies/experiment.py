"""A/B test: two versions, each user stays with one, and the question is which is better, not whether one is broken.

How many users it takes is worked out before; it is looked at once, at the end. Who looks every day and stops at the first p below
0.05 finds a difference where there is none, sooner or later.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from scipy import stats

from course_lib.cluster.strategies.users import UserLoad
from course_lib.errors import CourseError
from course_lib.lab.steps import record


def sample_size(before: float, after: float, *, alpha: float = 0.05, power: float = 0.8) -> int:
    """Users that each version needs, so that a difference is found if it is there.

    Two proportions, two-sided (Fleiss, Levin and Paik: Statistical Methods for Rates and Proportions, chapter 4, without the
    continuity correction; R's `power.prop.test` gives the same).

    Args:
        before: the share of the old version.
        after: the smallest share that would be worth the change, or the largest that would be a loss.
        alpha: how often a difference may be found where there is none.
        power: how often it has to be found where it is.

    Raises:
        CourseError: there is no difference between the two shares, or they are no shares.
    """
    if not (0 < before < 1 and 0 < after < 1) or before == after:
        raise CourseError(
            f"no number of users tells {before:g} from {after:g}", do="Take two different shares between 0 and 1."
        )
    mean = (before + after) / 2
    by_chance = float(stats.norm.ppf(1 - alpha / 2)) * math.sqrt(2 * mean * (1 - mean))
    found = float(stats.norm.ppf(power)) * math.sqrt(before * (1 - before) + after * (1 - after))
    return math.ceil(((by_chance + found) / (after - before)) ** 2)


@dataclass(frozen=True)
class Arm:
    """One version and its users."""

    version: str
    users: int
    right: int
    """Users whose answer was right."""

    @property
    def share(self) -> float:
        """Right of all."""
        return self.right / self.users if self.users else float("nan")


@dataclass(frozen=True)
class Result:
    """What an A/B test says."""

    a: Arm
    b: Arm
    p: float
    """How often chance alone makes so large a difference (Fisher's exact test, two-sided)."""
    low: float
    high: float
    """Between these the difference b - a lies, with 95 % confidence (Wald)."""
    balance: float
    """How often chance alone shares users out so unevenly; tiny: the assignment is broken, and nothing else counts."""
    needed: int
    """Users an arm, as worked out before."""

    @property
    def decision(self) -> str:
        """In a few words."""
        if self.balance < 0.001:
            return "invalid: users are not shared out as planned"
        if min(self.a.users, self.b.users) < self.needed:
            return "too few users: go on until the number that was worked out"
        if self.p >= 0.05:
            return "no difference found"
        return f"version {(self.b if self.b.share > self.a.share else self.a).version} is better"

    def rows(self) -> list[dict[str, object]]:
        """A table of it."""
        return [
            {"version": arm.version, "users": arm.users, "right": arm.right, "share": f"{arm.share:.1%}"}
            for arm in (self.a, self.b)
        ]

    def words(self) -> str:
        """It in a line."""
        return f"{self.decision} (b - a: {self.low:+.1%} to {self.high:+.1%}, p = {self.p:.2g}, {self.needed} users an arm were needed)"


def analyse(a: Arm, b: Arm, *, needed: int, share_b: float = 0.5) -> Result:
    """Compares two arms.

    Args:
        needed: users an arm, from `sample_size`.
        share_b: the share of users that version b was to get.

    Raises:
        CourseError: an arm has no users.
    """
    if not (a.users and b.users):
        raise CourseError("one version has no users", do="Share them out first.")
    p = float(stats.fisher_exact([[a.right, a.users - a.right], [b.right, b.users - b.right]])[1])
    difference = b.share - a.share
    error = math.sqrt(a.share * (1 - a.share) / a.users + b.share * (1 - b.share) / b.users)
    reach = float(stats.norm.ppf(0.975)) * error
    balance = float(stats.binomtest(b.users, a.users + b.users, share_b).pvalue)
    return Result(a, b, p, difference - reach, difference + reach, balance, needed)


def arms(load: UserLoad) -> dict[str, Arm]:
    """The versions that answered and their users. A user counts once, with the first answer: the answers of one user are no
    independent voices.

    Raises:
        CourseError: a user was answered by two versions, or a request was not answered at all.
    """
    by_user: dict[str, list[tuple[int, str, bool]]] = {}
    for one in load.sent:
        if one.status != 200 or not one.version:
            raise CourseError(
                f"request {one.number} was answered {one.status}", why=one.error, do="An experiment needs answers."
            )
        by_user.setdefault(load.users.user(one.number), []).append((one.number, one.version, load.right(one)))
    moved = [user for user, each in by_user.items() if len({version for _, version, _ in each}) > 1]
    if moved:
        raise CourseError(
            f"{len(moved)} users saw both versions", why=", ".join(moved[:5]), do="Share out by user, not by request."
        )
    again = sum(len(each) > 1 for each in by_user.values())
    record("experiment.sticky", "http", load.url, users=len(by_user), asked_again=again, moved=0)
    return _counted(min(each) for each in by_user.values())


def _counted(firsts: Iterable[tuple[int, str, bool]]) -> dict[str, Arm]:
    right: dict[str, list[bool]] = {}
    for _, version, good in firsts:
        right.setdefault(version, []).append(good)
    return {version: Arm(version, len(each), sum(each)) for version, each in sorted(right.items())}


def decide(found: Mapping[str, Arm], versions: Sequence[str], *, needed: int, share_b: float = 0.5) -> Result:
    """The result of an experiment with two versions, which is also a step's evidence.

    Raises:
        CourseError: other versions have answered than these two.
    """
    if set(found) != set(versions):
        raise CourseError(f"versions {sorted(found)} have answered, and {sorted(versions)} were to")
    result = analyse(*(found[version] for version in versions), needed=needed, share_b=share_b)
    record(
        "experiment.decided", "http", " or ".join(versions), decision=result.decision, p=result.p, low=result.low,
        high=result.high, needed=needed, arms=[vars(result.a), vars(result.b)],
    )  # fmt: skip
    return result
