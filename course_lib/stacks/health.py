"""How the services of a project are, and what stops those that are not well."""

from __future__ import annotations

import json
import re
import shutil
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from course_lib import shell, waits
from course_lib.errors import CourseError
from course_lib.lab import display
from course_lib.stacks import explanations
from course_lib.stacks.project import Project


@dataclass(frozen=True)
class State:
    """One container of a service, as the engine sees it."""

    service: str
    container: str
    status: str
    """running, exited, restarting, created, …"""
    health: str
    """healthy, unhealthy, starting; `none` where no health check is."""
    exit_code: int
    image: str
    probe: str
    """What its last health probe said, or its exit status where it said nothing."""
    probe_failed: bool = False
    probed: str = ""
    """When its last health probe began, in the engine's spelling."""
    out_of_memory: bool = False
    restarts: int = 0
    up_seconds: float = 0.0

    @property
    def well(self) -> bool:
        """Healthy, by its last probe, too; where nobody asks, running for a while, and longer after a restart: a crash loop
        runs now and then, too."""
        if self.health == "none":
            return self.status == "running" and self.up_seconds > (5 if self.restarts else 2)
        return self.status == "running" and self.health == "healthy" and not self.probe_failed

    @property
    def sick(self) -> bool:
        """Whether the last that its probe said is that it is not well."""
        return self.health == "unhealthy" or (self.health == "healthy" and self.probe_failed)

    @property
    def hopeless(self) -> bool:
        """Whether waiting alone won't make it well."""
        return self.status in ("exited", "dead") or self.health == "unhealthy" or self.restarts >= 3

    def words(self) -> str:
        """Its state in a line."""
        ended = f", exit code {self.exit_code}" if self.status in ("exited", "dead", "restarting") else ""
        memory = ", out of memory" if self.out_of_memory else ""
        again = f", restarted {self.restarts} times" if self.restarts else ""
        health = "" if self.health == "none" else f", {self.health}"
        wavering = ", its last probe failed" if self.health == "healthy" and self.probe_failed else ""
        return f"{self.status}{ended}{memory}{again}{health}{wavering}"


def states(project: Project) -> list[State]:
    """Every container of the project, running or not, by service."""
    mine = f"--filter=label=com.docker.compose.project={project.name}"
    ids = shell.run(["docker", "ps", "--all", "--quiet", "--no-trunc", mine], show=False, timeout=30).output.split()
    if not ids:
        return []
    said = shell.run(["docker", "container", "inspect", *ids], show=False, check=False, timeout=30)
    found = [_state(one) for one in json.loads(said.stdout or "[]")]
    return sorted((one for one in found if one), key=lambda one: (one.service, one.container))


def _state(found: dict[str, Any]) -> State | None:
    labels, state = found["Config"]["Labels"], found["State"]
    if labels.get("com.docker.compose.oneoff") == "True":
        return None
    health = state.get("Health") or {}
    log = health.get("Log") or []
    return State(
        service=labels["com.docker.compose.service"],
        container=found["Name"].lstrip("/"),
        status=state["Status"],
        health=health.get("Status", "none"),
        exit_code=state["ExitCode"],
        image=found["Config"]["Image"],
        probe=(" ".join(str(log[-1]["Output"]).split())[:300] or f"exit status {log[-1]['ExitCode']}") if log else "",
        probe_failed=bool(log) and log[-1]["ExitCode"] != 0,
        probed=str(log[-1]["Start"]) if log else "",
        out_of_memory=bool(state.get("OOMKilled")),
        restarts=int(found.get("RestartCount", 0)),
        up_seconds=_seconds_since(state["StartedAt"]),
    )


def _seconds_since(moment: str) -> float:
    """Seconds since a time in the engine's spelling, with its nanoseconds."""
    then = datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", moment).replace("Z", "+00:00"))
    return (datetime.now(UTC) - then).total_seconds()


def explain(project: Project, unwell: list[State]) -> str:
    """For each service that is not well: its state, what its last probe said, its last log lines, and what to do."""
    parts = []
    for one in unwell:
        one = _between_starts(project, one)
        if (one.restarts or one.exit_code == 137) and not one.out_of_memory and _ran_out_of_memory(one.container):
            one = replace(one, out_of_memory=True)
        # Where one was started again, the new run may have written already, and what ended the last one stands further up.
        tail = 60 if one.restarts else 8
        logged = shell.run(["docker", "logs", f"--tail={tail}", one.container], show=False, check=False, timeout=30)
        said = [line[:240] for line in (logged.stdout + logged.stderr).strip().splitlines()]
        log = "\n".join(f"    {line}" for line in said[-8:])
        lines = [f"{one.service}: {one.words()}"]
        lines += [f"  its last probe said: {one.probe}"] if one.probe and one.health != "healthy" else []
        lines += [f"  its last log lines:\n{log}"] if log else ["  it has logged nothing"]
        hint = explanations.of_service("\n".join([one.words(), one.probe, *said]))
        if not log and _disk_is_full():  # then nothing can be logged, either
            hint = explanations.of_service("no space left on device")
        lines += [f"  -> {hint}"] if hint else []
        parts.append("\n".join(lines))
    return "\n".join(parts)


def _between_starts(project: Project, one: State) -> State:
    """One that crashes again and again, as it is between two runs: there its state tells how the last one ended."""
    until = time.monotonic() + 5
    while one.status == "running" and one.restarts >= 3 and one.health in ("none", "starting"):
        if time.monotonic() > until:
            break
        time.sleep(0.1)
        one = next((now for now in states(project) if now.container == one.container), one)
    return one


def _disk_is_full() -> bool:
    """Whether the engine's disk has no room left, as far as it can be seen from here."""
    root = shell.run(["docker", "info", "--format={{.DockerRootDir}}"], show=False, check=False, timeout=30).output
    return bool(root) and Path(root).exists() and shutil.disk_usage(root).free < 10e6


def _ran_out_of_memory(container: str) -> bool:
    """Whether the kernel killed something in it lately: once a container runs again, its state does not tell any more."""
    since = ["--since=15m", "--until=0s", "--filter=event=oom", f"--filter=container={container}"]
    for _ in range(4):  # the engine hears of that by another way than of the end, and may do so later
        if shell.run(["docker", "events", *since], show=False, check=False, timeout=30).output:
            return True
        time.sleep(0.5)
    return False


class _Chance:
    """Who is unhealthy when the waiting begins, or was well and turns so, gets one more probe, which begins after that: it was
    overloaded, or what it needs was away. A last probe that failed is looked at once more, too."""

    def __init__(self, found: list[State]) -> None:
        now = time.monotonic()
        self._since = {one.container: now for one in found if one.sick}
        self._well = {one.container for one in found if one.well}

    def open(self, one: State) -> bool:
        """Whether a container is still to be probed again."""
        if one.health == "unhealthy" and one.container in self._well:
            self._since.setdefault(one.container, time.monotonic())
        since = self._since.get(one.container)
        if since is None or not one.sick or one.status != "running":
            return False
        return not one.probed or _seconds_since(one.probed) > time.monotonic() - since


def settle(project: Project, *, timeout: float = 15) -> list[State]:
    """Waits until each container that is sick now was probed once more; returns how all are then.

    Args:
        timeout: seconds; what is probed more seldom is left as it is.
    """
    found, until = states(project), time.monotonic() + timeout
    chance = _Chance(found)
    while any(chance.open(one) for one in found) and time.monotonic() < until:
        time.sleep(0.3)
        found = states(project)
    return found


def wait(
    project: Project, *, timeout: float, expected: dict[str, int] | None = None, live: display.Live | None = None
) -> list[State]:
    """Waits until every service is well, drawing how they stand.

    Args:
        timeout: seconds.
        expected: how many containers each service has to have; those of the configuration by default.
        live: where it is drawn, if a picture is there already.

    Raises:
        CourseError: a service ended, is unhealthy by a probe of now, keeps restarting, or is not well in time; explains
            each one.
    """
    live = live or display.Live()
    wanted = expected or counts(project)
    chance = _Chance(states(project))

    def probe() -> list[State]:
        found = states(project)
        live.draw_text(picture(found, wanted))
        missing = [s for s, n in wanted.items() if sum(one.service == s for one in found) != n]
        unwell = [one for one in found if not one.well and one.service in wanted]
        if hopeless := [one for one in unwell if one.hopeless and not chance.open(one)]:
            raise not_well(project, hopeless)
        if missing or unwell:
            names = ", ".join(dict.fromkeys([*missing, *(one.service for one in unwell)]))
            raise waits.NotYet(f"not healthy: {names}")
        return found

    def diagnose() -> str:
        return explain(project, [one for one in states(project) if not one.well])

    return waits.until(
        probe,
        what=f"every service of {project.short} to be healthy",
        timeout=timeout,
        every=0.2,
        diagnose=diagnose,
        do="Start with the service that others wait for; its log and its last probe stand above.",
    )


def not_well(project: Project, unwell: list[State]) -> CourseError:
    """The error for services that waiting won't help."""
    names = ", ".join(dict.fromkeys(one.service for one in unwell))
    return CourseError(
        f"not every service got healthy: {names}",
        why=explain(project, unwell),
        do="Mend what the lines above point at, and start the stack again.",
    )


def counts(project: Project) -> dict[str, int]:
    """How many containers each service of the profiles that are on should have."""
    config = project.config()
    return {name: int((what.get("deploy") or {}).get("replicas", 1)) for name, what in config["services"].items()}


def picture(found: list[State], wanted: dict[str, int]) -> str:
    """The services as lines of text: a sign, a name, how they are."""
    lines = []
    for service in wanted:
        mine = [one for one in found if one.service == service]
        said = "; ".join(one.words() for one in mine) or "not there yet"
        sign = "✓" if mine and all(one.well for one in mine) else "✗" if any(one.hopeless for one in mine) else "…"
        lines.append(f"{sign} {service:<14} {said}")
    return "\n".join(lines)
