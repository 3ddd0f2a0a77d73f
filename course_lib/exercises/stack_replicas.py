"""How requests spread over replicas: what a learner's function reads from Prometheus, and what each replica says itself."""

from __future__ import annotations

import json
from collections.abc import Callable

from course_lib import shell
from course_lib.exercises.stack_checks import require
from course_lib.images import stack_variables
from course_lib.stacks import Stack, course_stack

#: Not a multiple of 3: nobody gets the right numbers by dividing.
REQUESTS = 97


def compare(spread: Callable[[Stack, int], dict[str, float]]) -> dict[str, object]:
    """Has a learner's function scale a stack and count who answered, and counts for itself; returns the shares.

    Raises:
        NotYet: the numbers are not what the replicas say themselves.
    """
    require(
        callable(spread),
        f"the answer is {spread!r}",
        expected="a function of a stack and a number of requests",
        look="def",
    )
    stack = course_stack(stack_variables(), short="spread", profiles=())
    try:
        stack.up(services=("traces", "inference", "proxy", "prometheus"))
        before = count_in_replicas(stack, "/predict")
        said = spread(stack, REQUESTS)
        own = count_in_replicas(stack, "/predict")
        own = {address: count - before.get(address, 0) for address, count in own.items()}
        require(len(own) == 3, f"{len(own)} replicas run, and 3 were asked for", expected="3", look="stack.scale")
        require(
            isinstance(said, dict)
            and {str(k): round(float(v)) for k, v in said.items() if v} == {k: round(v) for k, v in own.items()},
            f"your function says {said}",
            expected=f"what the replicas say themselves: {own}",
            look="what the counters were before, and whether Prometheus had seen the last request",
        )
        require(
            sum(own.values()) == REQUESTS,
            f"{sum(own.values()):.0f} requests arrived",
            expected=f"{REQUESTS}",
            look="exercises.ask",
        )
        return {
            address: f"{count:.0f} of {REQUESTS} requests ({count / REQUESTS:.0%})" for address, count in own.items()
        }
    finally:
        stack.remove()


def count_in_replicas(stack: Stack, route: str) -> dict[str, float]:
    """Requests of a route, by address, as each replica of `inference` counts them itself."""
    found = {}
    ask = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:8080/metrics').read().decode())"
    for state in stack.states():
        if state.service != "inference" or state.status != "running":
            continue
        text = shell.run(["docker", "exec", state.container, "python3", "-c", ask], show=False, timeout=30).stdout
        lines = [
            line for line in text.splitlines() if line.startswith("http_requests_total{") and f'route="{route}"' in line
        ]
        networks = json.loads(
            shell.run(
                ["docker", "inspect", "--format={{json .NetworkSettings.Networks}}", state.container], show=False
            ).stdout
        )
        address = next(iter(networks.values()))["IPAddress"]
        found[f"{address}:8080"] = sum(float(line.rsplit(" ", 1)[1]) for line in lines)
    return found
