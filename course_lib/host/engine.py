"""Which Docker engine answers on this machine, and if none does, which of the many reasons it is."""

from __future__ import annotations

import json
import os
import platform
import shutil
from dataclasses import dataclass
from enum import Enum
from functools import cache
from pathlib import Path

from course_lib import shell
from course_lib.errors import CourseError


class EngineState(Enum):
    """Why the engine can or can't be used. Each wants something else done, so they are told apart."""

    READY = "ready"
    NOT_INSTALLED = "not installed"
    STOPPED = "installed but stopped"
    HANGING = "running but not answering"
    PERMISSION_DENIED = "permission denied"
    REMOTE = "a remote context"
    ROOTLESS = "rootless"
    DESKTOP_OFF = "Docker Desktop is off"
    WSL_WITHOUT_INTEGRATION = "Docker Desktop without WSL integration"


@dataclass(frozen=True)
class Engine:
    """What `docker version` and `docker info` said."""

    state: EngineState
    seen: str
    """The engine's or the client's own words."""
    version: str = ""
    storage: str = ""
    architecture: str = ""
    data_root: str = ""
    cpus: int = 0
    memory_bytes: int = 0

    @property
    def usable(self) -> bool:
        return self.state in (EngineState.READY, EngineState.ROOTLESS)


_REMEDIES = {
    EngineState.NOT_INSTALLED: "Run `make doctor ARGS=--fix`, which installs Debian's or Ubuntu's own packages, or install Docker Engine or Docker Desktop yourself.",
    EngineState.STOPPED: "Start it: `sudo systemctl start docker` (or `make doctor ARGS=--fix` where no systemd runs).",
    EngineState.HANGING: "Look at `journalctl -u docker` (a full disk is the usual cause), then restart it: `sudo systemctl restart docker`.",
    EngineState.PERMISSION_DENIED: "Run `sudo usermod -aG docker $USER`, log out and in again (a new terminal is not enough), and repeat the command. For this one run: `sudo -E make labs`.",
    EngineState.REMOTE: "The labs publish ports on this machine: run `docker context use default`, or unset DOCKER_HOST, or work on the machine where the engine is.",
    EngineState.DESKTOP_OFF: "Start Docker Desktop, wait until its whale stands still, and repeat the command.",
    EngineState.WSL_WITHOUT_INTEGRATION: "Start Docker Desktop on Windows; in its Settings, Resources, WSL integration, switch this distribution on (a WSL 1 distribution first needs `wsl --set-version NAME 2`); then repeat the command.",
}


#: How a probe that ran out of time is told from one that was refused.
_TOO_LATE = "did not answer within"


def remedy(state: EngineState) -> str:
    """What a person can do about a state; empty for those that work."""
    return _REMEDIES.get(state, "")


def _in_wsl() -> bool:
    return "microsoft" in platform.release().lower()


def _endpoint() -> str:
    """The address the docker client talks to, by its environment or context."""
    if host := os.environ.get("DOCKER_HOST"):
        return host
    try:
        shown = shell.run(
            ["docker", "context", "inspect", "--format={{.Endpoints.docker.Host}}"], show=False, timeout=10
        )
    except CourseError:
        return ""
    return shown.output


def _installed() -> bool:
    """Whether an engine is on this machine, running or not; the client alone is not one."""
    folders = ("/usr/bin", "/usr/sbin", "/usr/local/bin", "/snap/bin", str(Path.home() / "bin"))
    return shutil.which("dockerd") is not None or any(Path(f, "dockerd").exists() for f in folders)


def _desktop_installed() -> bool:
    # In WSL, Desktop's `docker` is a link into a disk that is there only while Desktop runs.
    link = Path("/usr/bin/docker")
    dangling = link.is_symlink() and "docker-desktop" in str(link.readlink())
    return dangling or Path("/Applications/Docker.app").exists() or Path.home().joinpath(".docker/desktop").exists()


def classify(words: str, *, endpoint: str, installed: bool, desktop: bool, wsl: bool) -> EngineState:
    """The state that a failed `docker version` speaks of. Pure, so that every row of it is tested."""
    low = words.lower()
    if endpoint.startswith(("tcp://", "ssh://", "http://", "https://")):
        return EngineState.REMOTE  # before all words: ssh says "Permission denied", too
    if "permission denied" in low:
        return EngineState.PERMISSION_DENIED
    if wsl and ("could not be found in this wsl" in low or "wsl integration" in low):
        return EngineState.WSL_WITHOUT_INTEGRATION
    if _TOO_LATE in low:
        return EngineState.HANGING
    if "desktop" in endpoint:
        return EngineState.DESKTOP_OFF
    if installed:  # before Desktop: its folder stays in the home when somebody changes to the engine
        return EngineState.STOPPED
    return EngineState.DESKTOP_OFF if desktop else EngineState.NOT_INSTALLED


def probe() -> Engine:
    """Asks the engine who it is. Takes at most about ten seconds."""
    if shutil.which("docker") is None:
        state = classify("", endpoint="", installed=_installed(), desktop=_desktop_installed(), wsl=_in_wsl())
        return Engine(state, "there is no `docker` program on the PATH")
    endpoint = _endpoint()
    try:
        info = shell.run(["docker", "info", "--format={{json .}}"], show=False, check=False, timeout=10)
        said = json.loads(info.stdout) if info.stdout.startswith("{") else {}
        errors = "\n".join(said.get("ServerErrors") or []) or info.stderr.strip()
        errors = errors or ("" if said else info.stdout.strip())  # WSL's stand-in for `docker` speaks on stdout
    except shell.CommandError:
        said, errors = {}, f"`docker info` {_TOO_LATE} 10 s"
    if not said.get("ServerVersion"):
        state = classify(errors, endpoint=endpoint, installed=_installed(), desktop=_desktop_installed(), wsl=_in_wsl())
        return Engine(state, errors or "the engine did not answer")
    if endpoint.startswith(("tcp://", "ssh://")) and not any(local in endpoint for local in ("127.0.0.1", "localhost")):
        return Engine(EngineState.REMOTE, f"the docker client talks to {endpoint}", version=said["ServerVersion"])
    rootless = any("rootless" in option for option in said.get("SecurityOptions") or [])
    return Engine(
        EngineState.ROOTLESS if rootless else EngineState.READY,
        f"Docker Engine {said['ServerVersion']}",
        version=said["ServerVersion"],
        storage=said.get("Driver", ""),
        architecture={"x86_64": "amd64", "aarch64": "arm64"}.get(
            said.get("Architecture", ""), said.get("Architecture", "")
        ),
        data_root=said.get("DockerRootDir", ""),
        cpus=said.get("NCPU", 0),
        memory_bytes=said.get("MemTotal", 0),
    )


def require() -> Engine:
    """The engine, if one can be used.

    Raises:
        CourseError: none can; says which of the reasons it is and what to do.
    """
    found = probe()
    if not found.usable:
        raise CourseError(f"Docker can't be used: {found.state.value}", why=found.seen, do=remedy(found.state))
    return found


@cache
def client_endpoint() -> str:
    """The address for a client library that, unlike `docker`, knows no contexts."""
    return _endpoint()
