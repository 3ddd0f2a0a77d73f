"""Users of a Service at a steady rate, one half of whom keep their connections, and what became of each request.

A Service shares out connections, not requests. Who keeps one stays with its pod until that pod sends it away; who opens one for
each request is drawn a pod each time, and may be drawn one that is on its way out. A rollout has to do right by both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

import numpy as np

from course_lib import images
from course_lib.bench.samples import quantiles_ms
from course_lib.errors import CourseError
from course_lib.steady_load import Sent, SteadyLoad

#: Seconds after which a user gives up.
PATIENCE = 10.0


class Users:
    """Predictions at a rate, half of them on connections that are kept and half each on one of its own.

    Args:
        rate: requests a second, both halves together.
    """

    def __init__(self, address: str, headers: Mapping[str, str], rate: float) -> None:
        body = {"model": "digits", "inputs": list(images.samples(1)[0].pixels)}
        self.rate = rate
        self._halves = [
            SteadyLoad(f"{address}/predict", body, rate=rate / 2, headers=headers, timeout=PATIENCE, keep_alive=keep)
            for keep in (True, False)
        ]

    def __enter__(self) -> Users:
        for half in self._halves:
            half.__enter__()
        return self

    def __exit__(self, *what: type[BaseException] | BaseException | TracebackType | None) -> None:
        for half in self._halves:
            half.__exit__(*what)

    def run_for(self, seconds: float) -> None:
        """Lets the load run on for a while."""
        self._halves[0].run_for(seconds)

    @property
    def sent(self) -> list[Sent]:
        """What has been answered or given up so far."""
        return [one for half in self._halves for one in half.sent]

    def fates(self) -> dict[str, Any]:
        """What became of all requests together, and the rate that there really was; to be asked after the block.

        Raises:
            CourseError: none was answered.
        """
        began = sorted(one.began for one in self.sent)
        late = [
            one - number / half.rate
            for half in self._halves
            for number, one in enumerate(sorted(each.began for each in half.sent))
        ]
        return {
            **fates(self.sent),
            "asked_rate": self.rate,
            "rate": round((len(began) - 1) / max(began[-1] - began[0], 1e-9), 1),
            "late_p99_ms": round(float(np.quantile(late, 0.99)) * 1000, 1),
        }


def fates(sent: Sequence[Sent]) -> dict[str, Any]:
    """How many requests were answered with 200, and how the others were lost.

    Refused is who got no connection, or an answer that is none (503, 429); cut, whose connection ended without an answer; given
    up, who had none after PATIENCE. kind's door on this machine takes every connection before it asks the node, so that one
    which the cluster refuses is seen as cut.

    Raises:
        CourseError: none was answered.
    """
    good = [one.seconds for one in sent if one.status == 200]
    bad = [one for one in sent if one.status != 200]
    if not good:
        raise CourseError("no request was answered under load", why=f"{bad[:1]}")
    by_fate = [_fate(one) for one in bad]
    return {
        "requests": len(sent),
        "answered": len(good),
        "lost": len(bad),
        **{fate: by_fate.count(fate) for fate in ("refused", "cut", "given_up")},
        "errors": sorted({f"{one.status or ''} {one.error}".strip(" :")[:160] for one in bad})[:5],
        **{name: round(value, 1) for name, value in quantiles_ms(good).items()},
    }


def _fate(one: Sent) -> str:
    if one.status or one.error.startswith(("ConnectError", "ConnectTimeout")):
        return "refused"
    return "given_up" if "Timeout" in one.error.partition(":")[0] else "cut"
