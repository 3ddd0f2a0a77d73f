"""The scenes that lab 4.4.2 plays on its stack: load, accidents, and what users and Prometheus see of them."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import httpx
import pandas as pd

from course_lib import images, ledger, reaper, shell
from course_lib.errors import CourseError
from course_lib.stacks import Stack, merged
from course_lib.stacks.built_images import STACK
from course_lib.steady_load import SteadyLoad

_MODEL, _RAG = '{job="inference"}', '{job="rag"}'
#: What the plots show: title, lines (name and PromQL, most of it recorded by docker/stack/prometheus/rules), unit.
DASHBOARD: tuple[tuple[str, dict[str, str], str], ...] = (
    (
        "Time to an answer",
        {
            "inference p50": f"job:http_request_duration_seconds:p50{_MODEL}",
            "inference p95": f"job:http_request_duration_seconds:p95{_MODEL}",
            "rag p95": f"job:http_request_duration_seconds:p95{_RAG}",
        },
        "seconds",
    ),
    ("Tokens", {"written": "sum(model:inference_completion_tokens:rate30s)"}, "tokens/s"),
    (
        "Queue",
        {
            "waiting": f"job:inference_waiting_requests:sum{_MODEL}",
            "running": f"job:inference_running_requests:sum{_MODEL}",
        },
        "requests",
    ),
    (
        "Errors",
        {name: f'job:http_request_errors:ratio_rate30s{{job="{name}"}}' for name in ("inference", "rag")},
        "share of requests",
    ),
    (
        "CPU",
        {name: f'job:process_cpu_seconds:rate30s{{job="{name}"}}' for name in ("inference", "rag", "prometheus")},
        "cores",
    ),
    (
        "Memory",
        {
            name: f'job:process_resident_memory_bytes:sum{{job="{name}"}} / 1e6'
            for name in ("inference", "rag", "prometheus")
        },
        "MB",
    ),
)


def load(stack: Stack, chat: Mapping[str, Any], *, rate: float, streamed: bool = False) -> SteadyLoad:
    """A steady load of one chat through the front door."""
    body = {**chat, "stream": True} if streamed else chat
    return SteadyLoad(
        f"{stack.url}/v1/chat/completions",
        body,
        rate=rate,
        headers={"Authorization": f"Bearer {stack.key}"},
        ca=str(stack.ca),
        streamed=streamed,
    )


def ask(stack: Stack) -> dict[str, Any]:
    """Sends one request through the front door: which digit is this?

    Raises:
        CourseError: no replica answered.
    """
    with stack.http() as http:
        answer = http.post("/predict", json={"model": "digits", "inputs": list(images.samples(1)[0].pixels)})
    if answer.status_code != 200:
        raise CourseError(f"/predict answered {answer.status_code}", why=answer.text[:300])
    return dict(answer.json())


def what_users_see(stack: Stack, question: str = "What is a volume?") -> str:
    """A question through the front door, and what came back: status, seconds, and the service's own words."""
    with stack.http() as http:
        try:
            answer = http.post("/rag/answer", json={"question": question})
        except httpx.HTTPError as error:
            return f"no answer: {error}"
    body = answer.json() if "json" in answer.headers.get("content-type", "") else {}
    words = body.get("answer") or body.get("error", {}).get("message") or answer.text[:200]
    return f"{answer.status_code} after {answer.elapsed.total_seconds():.2f} s: {words}"


def dashboard(stack: Stack, *, minutes: float = 3) -> dict[str, tuple[pd.DataFrame, str]]:
    """The figures of the last minutes by title: a data frame with a column a line, and its unit."""
    # What has just happened is seen one scrape and one evaluation of the rules later, two seconds each.
    stack.prometheus.wait_for(f'max(timestamp(up{{job="inference"}})) > {time.time() + 3:.0f}', timeout=30)
    found = {}
    for title, lines, unit in DASHBOARD:
        columns = {}
        for name, expression in lines.items():
            frame = stack.prometheus.series(expression, minutes=minutes)
            if len(frame.columns):
                columns[name] = frame.iloc[:, 0]
        found[title] = (pd.DataFrame(columns), unit)
    return found


def flood(stack: Stack, chat: Mapping[str, Any], *, rate: float = 50, cpus: float = 0.1) -> list[dict[str, object]]:
    """More requests than can be answered, until the alert QueueFilling fires; then what became of them, by status.

    Meanwhile each replica has only so much of a CPU: whether a queue fills must depend neither on how fast the machine is, nor
    on how much of it is left to who sends.

    Raises:
        CourseError: the alert did not fire, so the queue did not fill; or the stack did not recover.
    """
    with load(stack, chat, rate=rate) as running:
        with squeezed(stack, "inference", cpus):
            stack.prometheus.wait_for('ALERTS{alertname="QueueFilling", alertstate="firing"}', timeout=90)
        waiting = stack.prometheus.value('max_over_time(job:inference_waiting_requests:sum{job="inference"}[1m])')
    words = {200: "answered", 429: "refused: come back later", 0: "no answer"}
    rows: list[dict[str, object]] = [
        {"what": "most that waited at once, until QueueFilling fired", "requests": int(waiting)}
    ]
    statuses = sorted({one.status for one in running.sent})
    for status in statuses:
        times = sorted(one.seconds for one in running.sent if one.status == status)
        what = f"{words.get(status, 'failed')} ({status}), the median after {times[len(times) // 2]:.1f} s"
        rows.append({"what": what, "requests": len(times)})
    stack.wait_healthy()  # who waits for an overloaded server in vain calls itself unhealthy, and takes a moment to recover
    return rows


def lose_documents(stack: Stack) -> None:
    """The accident: the database's volume is deleted, and an empty one takes its place."""
    volume = stack.project.config()["volumes"]["documents"]["name"]
    stack.project.run("rm", "--stop", "--force", "chroma")
    reaper.dispose("volume", volume)
    ledger.write_down("volume", volume)
    stack.project.run("up", "--detach", "--no-build", "--no-deps", "chroma")
    stack.wait_healthy()


@contextmanager
def disconnected(stack: Stack, service: str, network: str) -> Iterator[None]:
    """A service is taken out of a network for the length of the block."""
    name = stack.project.config()["networks"][network]["name"]
    container = next(one.container for one in stack.states() if one.service == service)
    shell.run(["docker", "network", "disconnect", name, container])
    try:
        yield
    finally:
        shell.run(["docker", "network", "connect", f"--alias={service}", name, container])


@contextmanager
def squeezed(stack: Stack, service: str, cpus: float) -> Iterator[None]:
    """Each container of a service may use only so much of a CPU for the length of the block."""
    containers = [one.container for one in stack.states() if one.service == service]
    before = shell.run(
        ["docker", "inspect", "--format={{.HostConfig.NanoCpus}}", *containers], show=False
    ).output.split()
    shell.run(["docker", "update", f"--cpus={cpus:g}", *containers])
    try:
        yield
    finally:
        for container, nano in zip(containers, before, strict=True):
            shell.run(["docker", "update", f"--cpus={int(nano) / 1e9:g}", container])


def precedence(references: Mapping[str, str]) -> list[dict[str, object]]:
    """INFERENCE_REPLICAS as Compose resolves it, with one more place that sets it each time."""
    env, production = STACK / ".env", STACK / ".env.production"
    given = dict(references)
    rows = []
    for what, env_files, variables in (
        ("the default in the Compose file", (os.devnull,), {}),
        (".env", (env,), {}),
        (".env, then .env.production", (env, production), {}),
        ("both files, and the shell", (env, production), {"INFERENCE_REPLICAS": "5"}),
    ):
        config = merged((STACK / "compose.yaml",), given | variables, env_files=env_files)
        profiles = sorted(set(config["services"]) & {"backup", "database-door"})
        rows.append(
            {
                "set in": what,
                "replicas": config["services"]["inference"]["deploy"]["replicas"],
                "services of a profile": ", ".join(profiles) or "none",
            }
        )
    return rows
