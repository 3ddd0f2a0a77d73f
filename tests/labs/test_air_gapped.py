"""After `course setup` a lab needs no network: set up in a network namespace that has one, then cut it, then run."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from course_lib import shell, waits
from course_lib.cluster import node_image
from course_lib.images import bases, registry
from course_lib.lab import catalog
from course_lib.settings import CHECKOUT
from tests.labs.conftest import command, environment, the_report

pytestmark = [pytest.mark.lab, pytest.mark.docker, pytest.mark.timeout(1800)]

SPACE, LINK = "course-gap", "course-gap0"
SOCKET = Path("/run/course-gap.sock")
#: `ip netns exec` would mount a fresh /sys, in which an engine finds no cgroups.
INSIDE = ["nsenter", f"--net=/run/netns/{SPACE}"]


_CONNECT = (
    f"ip netns add {SPACE}",
    f"ip link add {LINK} type veth peer name eth0 netns {SPACE}",
    f"ip addr add 10.231.44.1/30 dev {LINK}",
    f"ip link set {LINK} up",
    f"ip -n {SPACE} link set lo up",
    f"ip -n {SPACE} addr add 10.231.44.2/30 dev eth0",
    f"ip -n {SPACE} link set eth0 up",
    f"ip -n {SPACE} route add default via 10.231.44.1",
    "iptables -t nat -A POSTROUTING -s 10.231.44.0/30 -j MASQUERADE",
    f"iptables -I FORWARD -i {LINK} -j ACCEPT",
    f"iptables -I FORWARD -o {LINK} -j ACCEPT",
)
_DISCONNECT = (
    f"iptables -D FORWARD -o {LINK} -j ACCEPT",
    f"iptables -D FORWARD -i {LINK} -j ACCEPT",
    "iptables -t nat -D POSTROUTING -s 10.231.44.0/30 -j MASQUERADE",
    f"ip link del {LINK}",
    f"ip netns del {SPACE}",
)


@pytest.fixture(scope="module")
def cut_off(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A second engine in a network namespace of its own, set up and then without any way out."""
    dockerd = shutil.which("dockerd", path="/usr/bin:/usr/sbin:/usr/local/bin")
    if os.geteuid() != 0 or dockerd is None or shutil.which("ip") is None:
        pytest.skip("a network namespace with an engine in it needs root and iproute2")
    folder = tmp_path_factory.mktemp("gap")
    try:
        for line in _CONNECT:
            shell.run(line.split(), show=False)
        with _engine(dockerd, folder) as env:
            done = subprocess.run(
                [*INSIDE, *command("setup")], env=env, cwd=CHECKOUT, capture_output=True, text=True, timeout=900
            )
            assert done.returncode == 0, done.stdout + done.stderr
            shell.run(["ip", "link", "set", LINK, "down"], show=False)
            yield env
    finally:
        for line in _DISCONNECT:
            shell.run(line.split(), show=False, check=False)
        SOCKET.unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)  # gigabytes, which pytest would keep for three runs


@contextmanager
def _engine(dockerd: str, folder: Path) -> Iterator[dict[str, str]]:
    """The second engine, with the bases and the registry's image of the first; yields the environment that asks it."""
    flags = [
        f"--data-root={folder}/data",
        f"--exec-root={folder}/exec",
        f"--host=unix://{SOCKET}",
        f"--pidfile={folder}/pid",
    ]

    def answers() -> None:
        if not shell.succeeds(["docker", "--host", f"unix://{SOCKET}", "version"]):
            raise waits.NotYet("no answer")

    with (folder / "dockerd.log").open("w") as log:
        daemon = subprocess.Popen([*INSIDE, dockerd, *flags], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            waits.until(
                answers,
                what="the second engine",
                timeout=60,
                diagnose=lambda: (folder / "dockerd.log").read_text()[-800:],
            )
            found = bases.ensure()  # carried over, so that the test need not build them again
            node = node_image.choose(found.source).reference
            known = [name for name in (found.os, found.runtime, found.builder, registry.ensure_image(), node) if name]
            shell.pipe(["docker", "save", *known], ["docker", "--host", f"unix://{SOCKET}", "load"])
            yield environment(CHECKOUT, DOCKER_HOST=f"unix://{SOCKET}", COURSE_STATE_DIR=str(folder / "state"))
        finally:
            daemon.terminate()
            try:
                daemon.wait(60)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()


#: Untouched each lab; the solution of one, for the checks take their images from the same places as the steps.
RUNS = [(lab, False) for lab in catalog.LABS.values()] + [(next(iter(catalog.LABS.values())), True)]


@pytest.mark.parametrize(
    ("lab", "solutions"), RUNS, ids=[f"{lab.id}-{'solution' if solved else 'untouched'}" for lab, solved in RUNS]
)
def test_a_lab_runs_with_the_network_cut(cut_off: dict[str, str], lab: catalog.Lab, solutions: bool) -> None:
    link = shell.run(["ip", "-n", SPACE, "link", "show", "eth0"], show=False).output
    assert "NO-CARRIER" in link, "the network is cut"
    run = [*INSIDE, *command("run", lab.id, *(["--solutions"] if solutions else []))]
    done = subprocess.run(run, env=cut_off, cwd=CHECKOUT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    (ran,) = the_report(CHECKOUT)["labs"]
    assert [step["status"] for step in ran["steps"]] == ["passed"] * len(lab.steps)
