"""Every reason why an engine can't be used is told from the others, by the words that clients really say."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from pathlib import Path

import pytest
from machines import PutOnPath, StartDouble, a_machine

from course_lib.doctor import engine_state
from course_lib.host import engine, setup
from course_lib.host.engine import Engine, EngineState

SOCKET = "unix:///var/run/docker.sock"
REFUSED = "Cannot connect to the Docker daemon at {}. Is the docker daemon running?"
DENIED = (
    "permission denied while trying to connect to the Docker daemon socket at unix:///var/run/docker.sock: Get "
    '"http://%2Fvar%2Frun%2Fdocker.sock/v1.45/info": dial unix /var/run/docker.sock: connect: permission denied'
)
DENIED_29 = "permission denied while trying to connect to the docker API at unix:///var/run/docker.sock"
REFUSED_29 = (
    "failed to connect to the docker API at unix:///var/run/docker.sock; check if the path is correct and if the "
    "daemon is running: dial unix /var/run/docker.sock: connect: no such file or directory"
)
BY_SSH = (
    'error during connect: Get "http://docker.example.com/v1.45/info": command [ssh -o ConnectTimeout=30 -l me -- spark '
    "docker system dial-stdio] has exited with exit status 255, please make sure the URL is valid, and Docker 18.09 or "
    "later is installed on the remote host: stderr="
)
WSL = (
    "The command 'docker' could not be found in this WSL {} distro.\n"
    "We recommend to activate the WSL integration in Docker Desktop settings.\n\n"
    "For details about using Docker Desktop with WSL 2, visit:\n\nhttps://docs.docker.com/go/wsl2/"
)
MAC = "unix:///Users/me/.docker/run/docker.sock"
LINUX_DESKTOP = "unix:///home/me/.docker/desktop/docker.sock"


@pytest.mark.parametrize(
    ("words", "endpoint", "installed", "desktop", "wsl", "state"),
    [
        (DENIED, SOCKET, True, False, False, EngineState.PERMISSION_DENIED),
        (DENIED_29, SOCKET, True, False, False, EngineState.PERMISSION_DENIED),
        (DENIED, SOCKET, True, False, True, EngineState.PERMISSION_DENIED),
        (REFUSED.format(SOCKET), SOCKET, True, False, False, EngineState.STOPPED),
        (REFUSED_29, SOCKET, True, False, False, EngineState.STOPPED),
        (REFUSED.format(SOCKET), SOCKET, True, True, False, EngineState.STOPPED),  # Desktop was here once
        (REFUSED.format(SOCKET), SOCKET, True, False, True, EngineState.STOPPED),  # docker-ce inside WSL
        (REFUSED.format(SOCKET), SOCKET, False, False, False, EngineState.NOT_INSTALLED),  # the client alone
        ("", "", False, False, False, EngineState.NOT_INSTALLED),
        ("", "", False, False, True, EngineState.NOT_INSTALLED),  # WSL without any Docker
        (REFUSED.format(MAC), MAC, False, True, False, EngineState.DESKTOP_OFF),
        (REFUSED.format(LINUX_DESKTOP), LINUX_DESKTOP, True, True, False, EngineState.DESKTOP_OFF),
        ("", "", False, True, True, EngineState.DESKTOP_OFF),  # `docker` links into Desktop's missing disk
        (WSL.format(2), "", False, False, True, EngineState.WSL_WITHOUT_INTEGRATION),
        (WSL.format(1), "", False, False, True, EngineState.WSL_WITHOUT_INTEGRATION),
        (REFUSED.format("tcp://10.0.0.7:2375"), "tcp://10.0.0.7:2375", True, False, False, EngineState.REMOTE),
        (BY_SSH + "ssh: connect to host spark: No route to host", "ssh://me@spark", True, False, False, EngineState.REMOTE),
        (BY_SSH + "me@spark: Permission denied (publickey).", "ssh://me@spark", True, False, False, EngineState.REMOTE),
        ("`docker info` did not answer within 10 s", SOCKET, True, False, False, EngineState.HANGING),
    ],
)  # fmt: skip
def test_words_are_told_apart(
    words: str, endpoint: str, installed: bool, desktop: bool, wsl: bool, state: EngineState
) -> None:
    assert engine.classify(words, endpoint=endpoint, installed=installed, desktop=desktop, wsl=wsl) is state


@pytest.mark.parametrize("state", list(EngineState))
def test_each_state_that_does_not_work_has_a_remedy_and_an_error(state: EngineState) -> None:
    found = Engine(state, "what was seen\nand a second line", version="26.1.5")
    (finding,) = engine_state.examine(a_machine(engine=found))
    if found.usable:
        assert finding.severity in ("ok", "note") and not engine.remedy(state)
    else:
        assert finding.severity == "error" and finding.remedy == engine.remedy(state) != ""
        assert state.value in finding.message and "what was seen" in finding.message and "\n" not in finding.message
    mendable = state in (EngineState.NOT_INSTALLED, EngineState.STOPPED)
    assert finding.fix is (setup.ready if mendable else None)


def test_a_dead_socket_is_a_stopped_engine_that_no_fix_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/dead.sock")
    monkeypatch.setattr(engine, "_installed", lambda: True)
    found = engine.probe()
    assert found.state is EngineState.STOPPED and "dead.sock" in found.seen
    (finding,) = engine_state.examine(a_machine(engine=found))
    assert "unset DOCKER_HOST" in finding.remedy and finding.fix is None


def test_no_client_on_the_path_is_no_client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(engine, "_installed", lambda: False)
    assert engine.probe().state is EngineState.NOT_INSTALLED
    monkeypatch.setattr(engine, "_installed", lambda: True)
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    (finding,) = engine_state.examine(a_machine(engine=engine.probe()))
    assert "docker-cli" in finding.remedy and finding.fix is None


def test_a_machine_elsewhere_is_remote_whether_it_answers_or_not(
    engine_double: StartDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:1")
    assert engine.probe().state is EngineState.REMOTE
    address = _own_address()
    engine_double(tcp=address)
    found = engine.probe()
    assert found.state is EngineState.REMOTE and found.version == "26.1.5" and address in found.seen


def _own_address() -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # no packet is sent: the kernel only chooses the address it would use
        except OSError:
            pytest.skip("this machine has no address but 127.0.0.1")
        return str(probe.getsockname()[0])


def test_an_engine_that_answers_is_ready_or_rootless(engine_double: StartDouble) -> None:
    engine_double()
    found = engine.probe()
    assert (found.state, found.architecture, found.cpus) == (EngineState.READY, "amd64", 2)


def test_a_rootless_engine_says_so(engine_double: StartDouble) -> None:
    engine_double(SecurityOptions=["name=seccomp,profile=builtin", "name=rootless"])
    found = engine.probe()
    assert found.state is EngineState.ROOTLESS and found.usable


def test_an_engine_that_hangs_is_not_taken_for_a_stopped_one(engine_double: StartDouble) -> None:
    engine_double(silent=True)
    found = engine.probe()
    assert found.state is EngineState.HANGING
    (finding,) = engine_state.examine(a_machine(engine=found))
    assert "restart" in finding.remedy and finding.fix is None


@pytest.mark.docker
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can ask as somebody else")
def test_a_user_without_the_group_gets_the_words_that_are_known() -> None:
    docker = shutil.which("docker")
    assert docker
    asked = subprocess.run(
        [docker, "info"],
        user=65534, group=65534, extra_groups=[],
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent"}, cwd="/", capture_output=True, text=True, timeout=20,
    )  # fmt: skip
    state = engine.classify(asked.stderr, endpoint=SOCKET, installed=True, desktop=False, wsl=False)
    assert state is EngineState.PERMISSION_DENIED, asked.stderr


def test_the_stand_in_of_wsl_speaks_on_standard_output(put_on_path: PutOnPath, monkeypatch: pytest.MonkeyPatch) -> None:
    """Docker Desktop puts a script named `docker` into WSL; without integration it says so and ends with status 1."""
    put_on_path("docker", f"cat <<'END'\n{WSL.format(2)}\nEND\nexit 1")
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.setattr(engine, "_in_wsl", lambda: True)
    monkeypatch.setattr(engine, "_installed", lambda: False)
    assert engine.probe().state is EngineState.WSL_WITHOUT_INTEGRATION
