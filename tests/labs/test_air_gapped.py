"""After `course setup` a lab needs no network, and no solutions: set up in a network namespace that has one, then cut it, then run."""

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
from tests.labs.conftest import command, environment, require_whole, the_report

pytestmark = [pytest.mark.lab, pytest.mark.docker, pytest.mark.timeout(1800, func_only=True)]

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
    "iptables -w 60 -t nat -A POSTROUTING -s 10.231.44.0/30 -j MASQUERADE",
    f"iptables -w 60 -I FORWARD -i {LINK} -j ACCEPT",
    f"iptables -w 60 -I FORWARD -o {LINK} -j ACCEPT",
)
_DISCONNECT = (
    f"iptables -w 60 -D FORWARD -o {LINK} -j ACCEPT",
    f"iptables -w 60 -D FORWARD -i {LINK} -j ACCEPT",
    "iptables -w 60 -t nat -D POSTROUTING -s 10.231.44.0/30 -j MASQUERADE",
    f"ip link del {LINK}",
    f"ip netns del {SPACE}",
)


def _cut() -> None:
    if "NO-CARRIER" not in shell.run(["ip", "-n", SPACE, "link", "show", "eth0"], show=False).output:
        raise waits.NotYet("the link is up")


@contextmanager
def _cut_off(folder: Path, checkout: Path) -> Iterator[dict[str, str]]:
    """A second engine in a network namespace of its own, set up by a checkout and then without any way out.

    Gives what has to be said in the environment to ask it.
    """
    dockerd = shutil.which("dockerd", path="/usr/bin:/usr/sbin:/usr/local/bin")
    if os.geteuid() != 0 or dockerd is None or shutil.which("ip") is None:
        pytest.skip("a network namespace with an engine in it needs root and iproute2")
    try:
        for line in _CONNECT:
            shell.run(line.split(), show=False)
        with _engine(dockerd, folder):
            asks = {"DOCKER_HOST": f"unix://{SOCKET}", "COURSE_STATE_DIR": str(folder / "state")}
            done = inside(checkout, asks, "setup")
            assert done.returncode == 0, done.stdout + done.stderr
            shell.run(["ip", "link", "set", LINK, "down"], show=False)
            waits.until(_cut, what="the network to be cut", timeout=20)
            yield asks
    finally:
        for line in _DISCONNECT:
            shell.run(line.split(), show=False, check=False)
        SOCKET.unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)  # gigabytes, which pytest would keep for three runs


@contextmanager
def _engine(dockerd: str, folder: Path) -> Iterator[None]:
    """The second engine, with the bases, the registry's image and the nodes' image of the first."""
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
            yield
        finally:
            daemon.terminate()
            try:
                daemon.wait(60)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()


def inside(checkout: Path, asks: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """`course …` of a checkout in the namespace, to its end."""
    return subprocess.run(
        [*INSIDE, *command(*arguments)],
        env=environment(checkout, **asks),
        cwd=checkout,
        capture_output=True,
        text=True,
        timeout=1500,
    )


# By night, and before the other engine is there: the name of the network is the same.
@pytest.mark.nightly
def test_a_solution_runs_without_a_network(tmp_path: Path) -> None:
    """Of one lab: the checks take their images from the same places as the steps."""
    lab = next(iter(catalog.LABS.values()))
    with _cut_off(tmp_path, CHECKOUT) as asks:
        done = inside(CHECKOUT, asks, "run", lab.id, "--solutions")
    assert done.returncode == 0, done.stdout + done.stderr
    (ran,) = the_report(CHECKOUT)["labs"]
    assert [step["status"] for step in ran["steps"]] == ["passed"] * len(lab.steps)


@pytest.fixture(scope="module")
def cut_off(tmp_path_factory: pytest.TempPathFactory, clone_without_solutions: Path) -> Iterator[dict[str, str]]:
    """An engine that a learner's clone has set up."""
    with _cut_off(tmp_path_factory.mktemp("gap"), clone_without_solutions) as asks:
        yield asks


@pytest.mark.parametrize("lab", [pytest.param(lab, id=lab.id) for lab in catalog.LABS.values()])
def test_a_lab_runs_untouched_without_solutions_and_without_a_network(
    cut_off: dict[str, str], lab: catalog.Lab, clone_without_solutions: Path
) -> None:
    done = inside(clone_without_solutions, cut_off, "run", lab.id)
    assert done.returncode == 0, done.stdout + done.stderr
    require_whole(clone_without_solutions, lab)
