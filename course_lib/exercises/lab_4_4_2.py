"""The exercises of lab 4.4.2: Compose files that are mended and written, replicas, an alert, and a terminal.

A check starts what the learner wrote and looks at the engine, at Prometheus and at the answers. Hints come in three: what to
think about, where to look, how it is said.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from course_lib.errors import CourseError
from course_lib.exercises import stack_alert, stack_cache, stack_own, stack_replicas, stack_scenes, stack_terminal
from course_lib.exercises import stack_checks as checks
from course_lib.exercises.stack_checks import require
from course_lib.lab.exercise import STARTERS, exercise
from course_lib.stacks import Stack

__all__ = [
    "ask", "dashboard", "disconnected", "flood", "load", "lose_documents", "precedence", "see_it_fail", "terminal_task", "what_users_see",
]  # fmt: skip

LAB = "4.4.2"

ask, dashboard, disconnected = stack_scenes.ask, stack_scenes.dashboard, stack_scenes.disconnected
flood, load, lose_documents = stack_scenes.flood, stack_scenes.load, stack_scenes.lose_documents
precedence, what_users_see = stack_scenes.precedence, stack_scenes.what_users_see
terminal_task = stack_terminal.show_task


def see_it_fail() -> str:
    """Starts the stack of `never-healthy` as the colleague left it, and returns what that ended in."""
    stack = checks.own(STARTERS / LAB / "never-healthy" / "compose.yaml", "failing")
    try:
        stack.up(timeout=120)
    except CourseError as error:
        return str(error)
    finally:
        stack.remove()
    return "It got healthy, which it never did before."


@exercise(
    LAB,
    "never-healthy",
    "A stack that never gets healthy",
    files=True,
    hints=(
        "Mend what the check names first, then run it again: each fault hides the next. State, exit code, last probe and last log line of a service nearly always say which of them it is.",
        "Which program does a health check start, and is it in that image? What ends a process with exit code 137? Who has to be in which network to find `chroma` by its name?",
        "Chroma's image has bash: docker/stack/compose.yaml shows a probe with it. inference needs some hundred megabytes. rag belongs to both networks. And Chroma writes to /data: what is on the volume after `down`?",
    ),
)
def never_healthy(folder: Path) -> dict[str, object]:
    file = folder / "compose.yaml"
    for name in ("inference", "chroma", "rag"):
        require(
            name in checks.services(file),
            f"there is no service {name}",
            expected="the three of the file",
            look=file.name,
        )
    stack = checks.own(file, "mended")
    merged = checks.merged(stack)
    for name, service in merged.items():
        checks.require_health_check(name, service)
        checks.require_memory_limit(name, service)
    checks.require_probes_that_can_fail(stack, merged)
    with checks.up(stack):
        checks.require_answers(stack, store=True)
        checks.require_survives(stack)
        return {"healthy": ", ".join(merged), "after down and up": "the document is still there, and is found"}


@exercise(
    LAB,
    "three-replicas",
    "Three replicas, and who answered",
    hints=(
        "A counter only grows, and has counted before you came: what you want is a difference. And a replica that has just started has no counter yet.",
        "`stack.prometheus.query('http_requests_total{…}')` gives a data frame with `instance` and `value`. Prometheus asks every two seconds, so wait until it has seen your last request: `stack.prometheus.wait_for(…)`.",
        '`sum by (instance) (http_requests_total{job="inference", route="/predict"})` before and after; in between `stack.scale(\'inference\', 3)` and `exercises.ask(stack)` as often as asked.',
    ),
)
def three_replicas(spread: Callable[[Stack, int], dict[str, float]]) -> dict[str, object]:
    return stack_replicas.compare(spread)


@exercise(
    LAB,
    "answer-cache",
    "A cache for answers, in Redis",
    files=True,
    hints=(
        "An override only says what differs. Compose lays the files over one another: for `rag` you write `environment` and `depends_on`, and the rest stays.",
        "The database's neighbours are on `back`, and rag is there. The health check of a Redis is `redis-cli ping`. Limits stand under deploy.resources.limits.",
        'command: ["redis-server", "--maxmemory", "32mb", "--maxmemory-policy", "allkeys-lru", "--save", ""]; for rag: environment: { CACHE_URL: redis://cache:6379/0 } and depends_on: { cache: { condition: service_healthy } }.',
    ),
)
def answer_cache(folder: Path) -> dict[str, object]:
    return stack_cache.require_caches(folder)


@exercise(
    LAB,
    "replica-alert",
    "An alert that does not fall silent",
    files=True,
    hints=(
        "Write the expression for one replica first, and try it in a cell of its own with `stack.prometheus.query(…)`. Then ask what it gives when there is nothing to count.",
        "`count(…)` and `sum(…)` of nothing are nothing, and nothing is not less than two. PromQL has a way to say *or else 0*.",
        '`(sum(up{job="inference"}) or vector(0)) < 2`, with `for: 4s`, under groups, rules, alert.',
    ),
)
def replica_alert(folder: Path) -> dict[str, object]:
    return stack_alert.require_does_not_fall_silent(folder)


@exercise(
    LAB,
    "in-a-terminal",
    "Scale and back up by hand",
    hints=(
        "Everything Compose needs stands in the env file of the table: with it, `docker compose` speaks to this very stack.",
        "`up` with --detach changes what differs and leaves the rest; --scale SERVICE=NUMBER says how many. `run --rm SERVICE …` starts a container once, for one command.",
        "`docker compose --env-file … up --detach --no-recreate --scale inference=2` and `docker compose --env-file … run --rm backup backup /backups/…`.",
    ),
)
def in_a_terminal() -> dict[str, object]:
    return stack_terminal.require_done()


@exercise(
    LAB,
    "own-stack",
    "Your own Compose file",
    files=True,
    deliverable=True,
    hints=(
        "You have read each part of it above. Start with one service that gets healthy, then the second, then the one that waits for both.",
        "What several services have in common can stand once, under a name that begins with x-, and be merged in with `<<: *name`. Two networks; the database's is internal.",
        "docker/stack/compose.yaml has it all, with more services: take out what yours need, and check each line you take.",
    ),
)
def own_stack(folder: Path) -> dict[str, object]:
    return stack_own.require_signed_and_sound(folder)
