"""Installing an engine from the distribution's own packages, and nothing else's.

Only where none is installed, only on Debian and Ubuntu, and only after saying what will be installed. Ubuntu has all it
takes in its own archive. Debian 12's engine and Compose are too old (20.10, no BuildKit Compose), so there they come from
the next release, pinned so low that nothing else is ever taken from it.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from course_lib import shell
from course_lib.errors import CourseError
from course_lib.settings import settings

_OS_RELEASE = Path("/etc/os-release")
_NEXT_SUITE = {"bookworm": "trixie"}
_SOURCE = Path("/etc/apt/sources.list.d/course-lab-next.sources")
_PREFERENCE = Path("/etc/apt/preferences.d/course-lab-next")

_DEBIAN = (
    "docker.io",
    "docker-cli",
    "docker-buildx",
    "docker-compose",
    "runc",
    "mmdebstrap",
    "iptables",
    "ca-certificates",
)
_UBUNTU = ("docker.io", "docker-buildx", "docker-compose-v2", "mmdebstrap", "iptables", "ca-certificates")
#: Taken from this release although a newer one is listed: the newer one needs a newer C library.
_KEPT_BACK = ("runc", "mmdebstrap", "iptables", "ca-certificates")


def os_release(text: str | None = None) -> dict[str, str]:
    """/etc/os-release as a dictionary; empty on macOS."""
    if text is None:
        text = _OS_RELEASE.read_text() if _OS_RELEASE.exists() else ""
    pairs = (line.split("=", 1) for line in text.splitlines() if "=" in line)
    return {key: value.strip().strip('"') for key, value in pairs}


def wanted(release: dict[str, str]) -> tuple[str, ...]:
    """The packages of an engine on a distribution; empty where its own don't suffice and the person has to choose."""
    if release.get("ID") == "ubuntu":
        return _UBUNTU
    if release.get("ID") == "debian":
        return _DEBIAN
    return ()


def next_suite_source(sources: str, suite: str, following: str) -> str:
    """The machine's own deb822 source of a suite, turned to the suite that follows it (no host name is written by us)."""
    for stanza in sources.replace("\r", "").split("\n\n"):
        lines = [line for line in stanza.splitlines() if line and not line.startswith("#")]
        fields = dict(line.split(":", 1) for line in lines if ":" in line and not line[0].isspace())
        if suite in fields.get("Suites", "").split() and "main" in fields.get("Components", ""):
            fields["Suites"] = f" {following}"
            fields["Components"] = " main"
            return "".join(f"{key}: {value.strip()}\n" for key, value in fields.items())
    return ""


def install_engine() -> None:
    """Installs an engine with buildx and Compose.

    Raises:
        CourseError: this system has no packages we would install, the person said no, or apt failed.
    """
    release = os_release()
    packages = wanted(release)
    if not packages or shutil.which("apt-get") is None:
        raise CourseError(
            f"no Docker engine, and none that this course would install on {release.get('PRETTY_NAME', 'this system')}",
            do="Install Docker Engine (Linux) or Docker Desktop (macOS, Windows with WSL2) and run the command again.",
        )
    if shell.succeeds(["dpkg", "--status", "containerd.io"]):
        raise CourseError(
            "Docker's own containerd.io is installed, without an engine; the distribution's packages would replace it",
            do="Install the engine that belongs to it (docker-ce, docker-buildx-plugin, docker-compose-plugin) and run the command again.",
        )
    _ask(packages)
    sudo = [] if os.geteuid() == 0 else ["sudo"]
    codename = release.get("VERSION_CODENAME", "")
    if following := _NEXT_SUITE.get(codename) if release["ID"] == "debian" else None:
        _list_next_suite(codename, following, sudo)
        packages = tuple(p if p in _KEPT_BACK else f"{p}/{following}" for p in packages)
    apt = [*sudo, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq"]
    shell.run([*apt, "update"], timeout=300, check=False)
    shell.run(
        [*apt, "install", "-y", "--no-install-recommends", *packages],
        timeout=900,
        do="apt-get says why, above. Repair that (`sudo apt-get -f install`) and run the command again.",
    )


def next_suite() -> str | None:
    """The release after this one, where its packages are listed beside this one's; None elsewhere."""
    following = _NEXT_SUITE.get(os_release().get("VERSION_CODENAME", ""))
    return following if following and _SOURCE.exists() else None


def install(*packages: str) -> None:
    """Installs single tools (mmdebstrap, say) on a system with apt, saying so first.

    Raises:
        CourseError: no apt here, the person said no, or apt failed.
    """
    if shutil.which("apt-get") is None:
        raise CourseError(
            f"this needs {', '.join(packages)}, from Debian's or Ubuntu's packages",
            do="Use IMAGES=registry on this system.",
        )
    _ask(packages)
    sudo = [] if os.geteuid() == 0 else ["sudo"]
    apt = [*sudo, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq"]
    shell.run([*apt, "update"], timeout=300, check=False)
    shell.run([*apt, "install", "-y", "--no-install-recommends", *packages], timeout=600)


def _ask(packages: tuple[str, ...]) -> None:
    listed = " ".join(packages)
    unattended = settings().yes or os.environ.get("CI") == "true" or not sys.stdin.isatty()
    if unattended:
        if os.geteuid() != 0 and not settings().yes and os.environ.get("CI") != "true":
            raise CourseError(
                f"these packages are missing: {listed}",
                do="Run the command in a terminal, where it can ask, or with YES=1.",
            )
        print(f"course: installing with apt-get: {listed}", file=sys.stderr)
        return
    answer = input(f"course: this machine lacks packages. Install with apt-get: {listed}? [y/N] ")
    if answer.strip().lower() not in ("y", "yes"):
        raise CourseError("nothing was installed", do="Install it yourself, or run the command again and say y.")


def _list_next_suite(codename: str, following: str, sudo: list[str]) -> None:
    sources = "\n\n".join(
        p.read_text() for p in sorted(Path("/etc/apt/sources.list.d").glob("*.sources")) if p != _SOURCE
    )
    stanza = next_suite_source(sources, codename, following)
    if not stanza:
        raise CourseError(
            f"Debian {codename}'s own Docker is too old for this course, and its package source was not found",
            do="Install Docker Engine yourself and run the command again.",
        )
    preference = f"Package: *\nPin: release n={following}\nPin-Priority: 100\n"
    for path, text in ((_SOURCE, stanza), (_PREFERENCE, preference)):
        shell.run([*sudo, "tee", str(path)], input=text, show=False)
