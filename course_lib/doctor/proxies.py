"""Proxies: whoever sets one for the shell has not yet set it for the engine, and may have set it for 127.0.0.1, too."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

from course_lib.doctor.check import Check
from course_lib.doctor.finding import Finding, error, ok, warning
from course_lib.doctor.machine import Machine


def judge(environment: Mapping[str, str], info: Mapping[str, Any], engine_answers: bool) -> Iterator[Finding]:
    """Pure: this shell's variables against what the engine says of its own in `docker info`."""
    mine = {name: _value(environment, name) for name in ("http_proxy", "https_proxy")}
    if not any(mine.values()):
        if engine_answers and info.get("HttpsProxy"):
            yield warning(
                f"the engine uses the proxy {info['HttpsProxy']}, this shell uses none",
                "If the network wants one, set HTTPS_PROXY and NO_PROXY=localhost,127.0.0.1 here, too.",
            )
        else:
            yield ok("none is set, for this shell or the engine" if engine_answers else "none is set for this shell")
        return
    shown = next(value for value in reversed(mine.values()) if value)
    if not {"127.0.0.1", "*"} & {entry.strip() for entry in _value(environment, "no_proxy").split(",")}:
        yield error(
            f"the proxy {_without_password(shown)} would be asked for 127.0.0.1, too, where the labs' own servers are",
            "Run `export NO_PROXY=localhost,127.0.0.1 no_proxy=localhost,127.0.0.1` and repeat the command.",
        )
    if engine_answers and not (info.get("HttpProxy") or info.get("HttpsProxy")):
        yield warning(
            f"this shell uses the proxy {_without_password(shown)}, the engine uses none: `docker pull` goes without it",
            'Put it under "proxies" in /etc/docker/daemon.json (http-proxy, https-proxy, no-proxy) and restart Docker, or set it in Docker Desktop\'s Settings.',
        )
    else:
        yield ok(f"{_without_password(shown)}, for this shell and the engine")


def _value(environment: Mapping[str, str], name: str) -> str:
    return environment.get(name) or environment.get(name.upper()) or ""


def _without_password(url: str) -> str:
    """A proxy's address as it may be shown: a report gets passed on."""
    scheme, separator, rest = url.rpartition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}"


def examine(machine: Machine) -> list[Finding]:
    return list(judge(os.environ, machine.info, machine.engine.usable))


CHECK = Check("proxies", examine)
