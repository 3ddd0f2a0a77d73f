"""Load for the exercises of lab 4.4.5: predictions and chats through a Service, what a chat costs, and how long answers take."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from course_lib import images
from course_lib.cluster import Deployer, headers, serving
from course_lib.errors import CourseError
from course_lib.exercises import cluster_scenes as scenes
from course_lib.steady_load import Sent, SteadyLoad

#: Some 20 ms of a core, since the token that ends an answer (2, `<|end|>`) is never taken: what is measured is the model, and not
#: the client, who shares the machine with it.
CHAT = {**scenes.CHAT, "max_tokens": 60, "logit_bias": {"2": -100}}
_CPU = "process_cpu_seconds_total"


def predictions(deployer: Deployer, address: str, *, rate: float) -> SteadyLoad:
    """Users who come once: each prediction on a connection of its own, so that the Service draws a pod for each."""
    body = {"model": "digits", "inputs": list(images.samples(1)[0].pixels)}
    return SteadyLoad(
        f"{address}/predict", body, rate=rate, headers=headers(deployer), timeout=60, keep_alive=False
    )  # fmt: skip


def chats(deployer: Deployer, address: str, *, rate: float) -> SteadyLoad:
    """The same with answers that a text model writes."""
    return SteadyLoad(
        f"{address}/v1/chat/completions", CHAT, rate=rate, headers=headers(deployer), timeout=30, keep_alive=False
    )


def cost(deployer: Deployer, address: str, *, rate: float = 3, seconds: float = 6) -> tuple[float, list[Sent]]:
    """What one chat costs, in seconds of a core, by the pods' own account; and the requests that were sent to find out.

    A load that is so many times what a replica may use is so on each machine, fast or slow.

    Raises:
        CourseError: a request was not answered.
    """
    with chats(deployer, address, rate=rate) as warm:  # the first answers are dearer
        warm.run_for(1)
    before = _used(deployer)
    with chats(deployer, address, rate=rate) as load:
        load.run_for(seconds)
    spent = _used(deployer) - before
    if refused := unanswered(load.sent):
        raise CourseError(f"of {len(load.sent)} single requests not all were answered", why=refused)
    return max(spent / len(load.sent), 1e-3), load.sent


def quantile(sent: Sequence[Sent], share: float) -> float:
    """Seconds within which a share of the requests was answered; without end where too many were refused."""
    times = sorted(one.seconds if one.status == 200 else math.inf for one in sent)
    return times[max(0, math.ceil(share * len(times)) - 1)] if times else math.inf


def unanswered(sent: Sequence[Sent]) -> str:
    """What became of the requests that were not answered with 200, in a line; empty where all were."""
    failed = Counter(_fate(one) for one in sent if one.status != 200)
    return ", ".join(f"{number} {what}" for what, number in failed.most_common())


def _fate(one: Sent) -> str:
    known = {429: "refused (429, the queue is full)", 503: "refused (503, not ready or ending)"}
    if one.status:
        return known.get(one.status, f"answered {one.status}")
    return f"without an answer ({one.error.partition(':')[0]})"


def _used(deployer: Deployer) -> float:
    return sum(deployer.counted(serving.DEPLOYMENT, _CPU, port=serving.PORT).values())
