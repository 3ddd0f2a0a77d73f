"""The Compose file that a learner would sign: read, started, tried at its doors, killed, and started again."""

from __future__ import annotations

import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from course_lib.errors import CourseError
from course_lib.exercises import stack_checks as checks
from course_lib.exercises.stack_checks import require
from course_lib.lab.exercise import NotYet
from course_lib.settings import settings
from course_lib.stacks import Stack, require_unreachable


def require_signed_and_sound(folder: Path) -> dict[str, object]:
    """Reads, starts, breaks and starts again what a learner wrote; returns what was measured.

    Raises:
        NotYet: something is missing in the file, or the stack does not hold.
    """
    file = folder / "compose.yaml"
    for name in ("inference", "chroma", "rag"):
        require(
            name in checks.services(file),
            f"there is no service {name}",
            expected="inference, chroma and rag",
            look=file.name,
        )
    stack = _with_init(checks.own(file, "own"), "rag")
    services = checks.merged(stack)
    _require_signed(stack, services)
    checks.require_probes_that_can_fail(stack, services)
    began = time.monotonic()
    with checks.up(stack):
        started = time.monotonic() - began
        checks.require_answers(stack, store=True)
        _require_closed(stack, services)
        times = [checks.require_answers(stack, store=False) for _ in range(10)]
        stack.crash("rag")
        back = checks.eventually(lambda: _restarted(stack, "rag"), what="", timeout=60)
        require(back, "rag was killed, and did not come back", expected="it starts again by itself", look="restart")
        checks.require_answers(stack, store=False)
        checks.require_survives(stack)
    return {
        "services": len(services),
        "up_until_healthy_seconds": round(started, 1),
        "answer_p50_milliseconds": round(statistics.median(times) * 1000, 1),
        "documents": "survive a crash, and down and up",
        "database": "not to be reached from inference; no way out",
        "hardened": "read-only, no capabilities, memory limits, key as a secret",
    }


def _with_init(stack: Stack, service: str) -> Stack:
    """The same stack, with an init in front of a service's own process, whatever the file says: only so can it be killed."""
    override = settings().work_dir / "stack" / "init-override.yaml"
    override.parent.mkdir(parents=True, exist_ok=True)
    override.write_text(yaml.safe_dump({"services": {service: {"init": True}}}))
    return Stack(replace(stack.project, files=(*stack.project.files, override)))


def _restarted(stack: Stack, service: str) -> bool:
    """Whether a service has been started again, and all are well."""
    states = stack.states()
    return all(one.well for one in states) and any(one.service == service and one.restarts for one in states)


def _require_signed(stack: Stack, services: dict[str, Any]) -> None:
    """What can be read from the merged configuration.

    Raises:
        NotYet: a part of it is missing.
    """
    for name, service in services.items():
        checks.require_health_check(name, service)
        checks.require_memory_limit(name, service)
        require(
            bool(service.get("read_only")),
            f"service {name} may write to its root",
            expected="read_only: true",
            look="read_only, tmpfs",
        )
        require(
            "ALL" in (service.get("cap_drop") or []),
            f"service {name} keeps its capabilities",
            expected="cap_drop: [ALL]",
            look="cap_drop",
        )
        require(service.get("restart") in ("always", "unless-stopped", "on-failure"), f"service {name} has no restart policy", expected="one that brings it back", look="restart")  # fmt: skip
        tag = str(service.get("image", "")).rpartition("/")[2]
        require(":" in tag and not tag.endswith(":latest"), f"service {name} runs {service.get('image')}", expected="an image with a version", look="image")  # fmt: skip
        if name != "rag":
            checks.require_no_ports(name, service)
    ports = services["rag"].get("ports") or []
    require(bool(ports), "rag has no port on the host", expected="port 8000, on 127.0.0.1", look="ports")
    require(all(port.get("host_ip") == "127.0.0.1" for port in ports), "rag is published on every address of this machine", expected="127.0.0.1 alone", look="ports")  # fmt: skip
    require(not any(port.get("published") not in (None, "", "0") for port in ports), "rag's port on the host is fixed", expected="one that Docker chooses", look="ports: 127.0.0.1::8000")  # fmt: skip
    for other in ("inference", "chroma"):
        checks.require_waits_for("rag", services["rag"], other)
    for name in ("inference", "rag"):
        require(
            bool(services[name].get("secrets")), f"{name} gets no secret", expected="the key as a file", look="secrets"
        )


def _require_closed(stack: Stack, services: dict[str, Any]) -> None:
    """What can only be seen on the running stack: the key is wanted, and the database is out of reach.

    Raises:
        NotYet: it is not.
    """
    for name, service in services.items():
        open_key = stack.key in str(service.get("environment") or {})
        require(not open_key, f"the key stands in the environment of {name}", expected="a secret", look="secrets")
    ask = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:8080/models').status)"
    opened = stack.execute("inference", "python3", "-c", ask, check=False).output
    require(opened != "200", "inference answers without a key", expected="401 to who has none", look="API_KEYS_FILE")
    try:
        require_unreachable(stack, "chroma", 8000, from_="inference")
    except CourseError as error:
        raise NotYet(error.what, expected="a database that inference can't reach", look="networks") from None
    attached = [what for what in stack.project.config()["networks"].values() if what.get("internal")]
    require(bool(attached), "no network is internal", expected="the database's has no way out", look="internal: true")
