"""Are the engine and its two plugins new enough? Old ones fail in the middle of a lab, with words that don't say why."""

from __future__ import annotations

import re
from collections.abc import Iterator

from packaging.version import Version

from course_lib.doctor.check import Check
from course_lib.doctor.finding import Finding, error, ok
from course_lib.doctor.machine import Machine
from course_lib.host import packages

#: HEALTHCHECK --start-interval is followed from here on (BuildKit is the default builder since 23.0).
MINIMUM_ENGINE = Version("25.0")
#: Progress and provenance as the labs read them.
MINIMUM_BUILDX = Version("0.12")
#: `!override`, `pull --policy` and the merged configuration as JSON.
MINIMUM_COMPOSE = Version("2.24")

_PLUGINS = {"buildx": MINIMUM_BUILDX, "compose": MINIMUM_COMPOSE}
_DEBIAN_PACKAGES = {"buildx": "docker-buildx", "compose": "docker-compose"}
_UBUNTU_PACKAGES = {"buildx": "docker-buildx", "compose": "docker-compose-v2"}


def parse(text: str) -> Version:
    """The version in a program's own spelling: v0.13.1+ds1, 2.26.1-4, 26.1.5+dfsg1, v2.39.1-desktop.1."""
    found = re.search(r"\d+(\.\d+)+", text)
    return Version(found.group()) if found else Version("0")


def package_advice(plugin: str, release: dict[str, str]) -> str:
    """Which package has a plugin, on this distribution."""
    docker_own = f"docker-{plugin}-plugin"
    names = {"debian": _DEBIAN_PACKAGES, "ubuntu": _UBUNTU_PACKAGES}.get(release.get("ID", ""))
    if names:
        return f"Run `sudo apt-get install {names[plugin]}` ({docker_own} where Docker's own packages are used)."
    return f"Update Docker Desktop, or install the package {docker_own}."


def examine(machine: Machine) -> Iterator[Finding]:
    fit: list[str] = []
    if machine.engine.version:
        if parse(machine.engine.version) < MINIMUM_ENGINE:
            yield error(
                f"Docker Engine {machine.engine.version} is older than {MINIMUM_ENGINE}",
                "Update it: docker.io of Ubuntu 22.04 (with its updates) or Debian 13 and later, Docker's own packages and Docker Desktop are new enough.",
            )
        else:
            fit.append(f"Engine {machine.engine.version}")
    if not machine.info:
        return  # no client answered: the engine's own finding says so
    have = {p["Name"]: p.get("Version", "") for p in machine.info.get("ClientInfo", {}).get("Plugins") or []}
    for plugin, minimum in _PLUGINS.items():
        advice = package_advice(plugin, packages.os_release())
        if not have.get(plugin):
            yield error(f"the Docker plugin {plugin} is not installed", advice)
        elif parse(have[plugin]) < minimum:
            yield error(f"the Docker plugin {plugin} {have[plugin]} is older than {minimum}", advice)
        else:
            fit.append(f"{plugin} {have[plugin]}")
    if fit:
        yield ok(", ".join(fit))


CHECK = Check("versions", examine)
