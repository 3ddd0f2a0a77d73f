"""Does a Docker engine answer, and if not, which of the many reasons is it?"""

from __future__ import annotations

import os

from course_lib.doctor.check import Check
from course_lib.doctor.finding import Finding, error, note, ok
from course_lib.doctor.machine import Machine
from course_lib.host import engine, setup
from course_lib.host.engine import EngineState

#: The states that `host.setup.ready` can change; the others need a person.
_MENDABLE = (EngineState.NOT_INSTALLED, EngineState.STOPPED)


def examine(machine: Machine) -> list[Finding]:
    found = machine.engine
    if found.state is EngineState.READY:
        return [ok(f"Docker Engine {found.version} answers ({found.cpus} CPUs)")]
    if found.state is EngineState.ROOTLESS:
        return [
            note(
                f"Docker Engine {found.version} answers, without root's rights: fine for the labs, which use neither ports below 1024 nor host networking while they run"
            )
        ]
    seen = found.seen.strip().splitlines()[0] if found.seen.strip() else "no reason was given"
    return [_unusable(found.state, f"Docker can't be used: {found.state.value} ({seen})")]


def _unusable(state: EngineState, message: str) -> Finding:
    host = os.environ.get("DOCKER_HOST", "")
    if state is EngineState.STOPPED and host:
        # Another engine may well run: starting one more would not make this address answer.
        return error(
            message, f"DOCKER_HOST is {host}, where nothing answers: run `unset DOCKER_HOST`, or start that engine."
        )
    if state is EngineState.STOPPED and "no `docker` program" in message:
        return error(
            "the Docker engine is here, its client is not: there is no `docker` program on the PATH",
            "Install docker-cli (Debian's) or docker-ce-cli (Docker's own), or add its folder to the PATH.",
        )
    return error(message, engine.remedy(state), fix=setup.ready if state in _MENDABLE else None)


CHECK = Check("engine", examine)
