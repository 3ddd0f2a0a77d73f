"""What goes wrong when a stack is started, as a person meets it: a sentence that helps, and nothing half started."""

from __future__ import annotations

import socket
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from course_lib.errors import CourseError
from course_lib.settings import settings
from course_lib.stacks import Stack, built_images, built_variables, course_stack
from tests.stacks.conftest import compose, objects

pytestmark = pytest.mark.docker

Make = Callable[..., Stack]


def probe(*command: str, **more: Any) -> dict[str, Any]:
    return {"healthcheck": {"test": ["CMD", *command], "interval": "300ms", "timeout": "20s", "retries": 2, **more}}


def script(text: str, **more: Any) -> dict[str, Any]:
    """A service that runs a line of shell, and is not well however long that takes to end."""
    never = probe("test", "-e", "/never", start_period="60s", start_interval="60s", interval="60s")
    return {"command": ["sh", "-c", text], **never, **more}


def require_refused(failing: Stack, *words: str, timeout: float = 60) -> CourseError:
    """`up` fails with these words, and leaves no container and no network."""
    with pytest.raises(CourseError) as failed:
        failing.up(timeout=timeout)
    for word in words:
        assert word in str(failed.value)
    assert failed.value.do, "it says what to do"
    assert objects(failing, "container", "network") == set()
    failing.remove()
    assert objects(failing) == set() and not failing.project.folder.exists()
    return failed.value


# The files


@pytest.mark.parametrize(
    ("text", "what", "detail"),
    [
        (compose(one={"networks": ["bcak"]}), "names something that it does not define", "bcak"),
        (compose(one={"volumes": ["data:/data"]}), "names something that it does not define", "data"),
        (compose(one={"secrets": ["key"]}), "names something that it does not define", "key"),
        (compose(one={"depends_on": ["two"]}), "names something that it does not define", "two"),
        ("services:\n  one:\n    image: x\n   command: y\n", "can't be read", "line"),
        ("services:\n\tone: {}\n", "can't be read", "line 2"),
        (compose(one={"imgae": "x"}), "can't be read", "imgae"),
        (compose(one={"ports": "yes"}), "can't be read", "ports"),
        (compose(one={"mem_limit": "much"}), "can't be read", "much"),
        (compose(one={"environment": {"A": "${A B}"}}), "can't be read", "A B"),
        (compose(one={"environment": {"A": "${NOT_GIVEN:?say which}"}}), "has no value", "NOT_GIVEN"),
        ("", "has no services", ""),
        ("services: {}\n", "has no services", ""),
        ("services: { one: { init: true } }\n", "is not complete", "neither an image nor a build"),
    ],
    ids=["network", "volume", "secret", "service", "indentation", "tab", "key", "type", "size", "variable", "no value", "empty", "no service", "no image"],
)  # fmt: skip
def test_a_file_that_is_wrong(small_stack: Make, text: str, what: str, detail: str) -> None:
    error = require_refused(small_stack(text), what)
    assert detail in error.why


def test_the_course_stack_without_its_image(own_work: object) -> None:
    require_refused(course_stack({}), "a variable of the Compose file has no value", "INFERENCE_IMAGE")


# What it needs of the machine


def test_a_port_that_is_taken(small_stack: Make) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        failing = small_stack(compose(one={"ports": [f"127.0.0.1:{port}:80"]}))
        error = require_refused(failing, "a port of this machine is taken by another program")
    assert str(port) in error.why and "HTTPS_PORT" in error.do


@pytest.mark.parametrize("image", ["localhost:1/course-test/never-pushed:1", "course-test-never/built:1"])
def test_an_image_that_is_not_to_be_had(small_stack: Make, image: str) -> None:
    """From no registry, and from one that has no such image: behind a firewall, or after a typing error."""
    require_refused(
        small_stack(compose(one={"image": image})), "an image could not be had from its registry", "one Error"
    )


def test_a_file_to_mount_that_is_missing(small_stack: Make) -> None:
    mount = {"type": "bind", "source": "./prompts", "target": "/prompts", "bind": {"create_host_path": False}}
    require_refused(small_stack(compose(one={"volumes": [mount]})), "mounts is not there", "/prompts")


def test_a_model_folder_that_is_missing(own_work: Path, stack_images: dict[str, str]) -> None:
    """A learner's own model, and a typing error: not an empty folder that Docker has made, and a server without the model."""
    nowhere = own_work / "modles"
    failing = course_stack(stack_images, short="small", variables={"MODEL_FOLDER": str(nowhere)})
    with pytest.raises(CourseError, match="mounts is not there") as failed:
        failing.up(services=("inference",))
    failing.remove()
    assert str(nowhere) in failed.value.why and not nowhere.exists() and objects(failing) == set()


def test_a_secret_whose_file_is_missing(small_stack: Make) -> None:
    text = compose(one={"secrets": ["key"]}, top={"secrets": {"key": {"file": "./key"}}})
    require_refused(small_stack(text), "mounts is not there", "/key")


def test_a_container_name_that_is_taken(small_stack: Make) -> None:
    text = compose(one={"container_name": settings().object_name("taken")})
    first = small_stack(text, "first")
    first.up()
    require_refused(small_stack(text, "second"), "a container of that name is there already")
    assert first.states()[0].well, "the one that has the name is left alone"


# Services that do not get well


def test_a_health_check_that_asks_with_what_the_image_lacks(small_stack: Make) -> None:
    text = compose(one=probe("curl", "--fail", "http://127.0.0.1"))
    error = require_refused(small_stack(text), "not every service got healthy: one", "curl")
    assert "a program that the image does not have" in error.why


def test_a_dependency_that_never_gets_healthy(small_stack: Make) -> None:
    """The one that waits for it is not to blame, and is not named."""
    text = compose(
        one=probe("sh", "-c", "echo the index is broken; exit 1"),
        two={"depends_on": {"one": {"condition": "service_healthy"}}},
    )
    error = require_refused(small_stack(text), "not every service got healthy: one", "the index is broken")
    assert "two" not in error.what


def test_a_service_that_crashes_again_and_again(small_stack: Make) -> None:
    text = compose(one=script("echo no model at /models; exit 3", restart="always"))
    error = require_refused(small_stack(text), "not every service got healthy: one", "no model at /models")
    assert "restarted" in error.why and "exit code 3" in error.why


def test_a_service_that_ends(small_stack: Make) -> None:
    failing = small_stack(compose(one=script("echo nothing to do")))
    require_refused(failing, "not every service got healthy: one", "exited, exit code 0", "nothing to do")


@pytest.mark.parametrize("restart", ["no", "always"])
def test_a_service_that_runs_out_of_memory(small_stack: Make, restart: str) -> None:
    """The kernel kills it, and its log says nothing of that."""
    greedy = ["python3", "-c", "import time; time.sleep(1); x = bytearray(200_000_000)"]
    bounded = {"command": greedy, "mem_limit": "32m", "memswap_limit": "32m", "restart": restart}
    text = compose(one={**bounded, **probe("test", "-e", "/ready", start_period="60s")})
    error = require_refused(small_stack(text), "not every service got healthy: one", "out of memory")
    assert "more memory than its limit" in error.why


def test_a_wait_that_runs_out_shows_how_things_stand(small_stack: Make) -> None:
    failing = small_stack(compose(one=probe("false", start_period="300s", start_interval="300s")))
    require_refused(failing, "waited 30 s", "not healthy: one", "one: running, starting", timeout=30)


@pytest.mark.parametrize(
    ("command", "hint"),
    [
        ("echo x > /etc/x", "It writes to a place that is read-only"),
        ("cat /models/model.json", "A file it needs is not there"),
        ("cat /etc/shadow", "compare the user it runs as"),
        (
            "python3 -c 'import socket; socket.create_connection((\"chrmoa\", 80))'",
            "does not find another service by name",
        ),
        ("python3 -c 'import socket; socket.create_connection((\"127.0.0.1\", 80))'", "is not listening (yet)"),
        ("dd if=/dev/zero of=/tmp/x bs=1M count=2", "is full"),
    ],
    ids=["read-only", "no file", "permission", "name", "port", "full"],
)
def test_what_a_log_line_means(small_stack: Make, command: str, hint: str) -> None:
    user = "0:0" if "/etc/x" in command else "10009:10009"
    net = {"network_mode": "none"} if "chrmoa" in command else {}  # no name server, no waiting for one
    text = compose(one=script(command, read_only=True, user=user, tmpfs=["/tmp:size=1m"], **net))
    error = require_refused(small_stack(text), "not every service got healthy: one")
    assert hint in error.why


# Volumes from elsewhere

MIGRATIONS = "create table migrations (dir text, version integer, filename text, sql text, hash text, primary key (dir, version))"


@pytest.mark.parametrize(
    ("mode", "newer", "hint"),
    [(0o777, True, "A newer Chroma wrote this volume"), (0o755, False, "compare the user it runs as")],
    ids=["newer", "of another user"],
)
def test_a_volume_that_chroma_cannot_use(
    small_stack: Make, stack_images: dict[str, str], own_work: Path, mode: int, newer: bool, hint: str
) -> None:
    folder = own_work / "data"
    folder.mkdir()
    if newer:
        with closing(sqlite3.connect(folder / "chroma.sqlite3")) as database, database:
            database.execute(MIGRATIONS)
            database.execute("insert into migrations values ('sysdb', 99, '00099-later.sqlite.sql', '', '')")
        (folder / "chroma.sqlite3").chmod(0o666)
    folder.chmod(mode)
    image = built_variables(stack_images)["CHROMA_IMAGE"]
    settings_file = f"{built_images.STACK}/chroma/config.yaml:/config.yaml:ro"
    one = {"image": image, "user": "10004:10004", "command": None, "volumes": [f"{folder}:/data", settings_file]}
    failing = small_stack(
        compose(one={**one, **probe("true", start_period="60s", start_interval="60s", interval="60s")})
    )
    error = require_refused(failing, "not every service got healthy: one", "exited")
    assert hint in error.why


def test_a_crash_that_could_not_be_one(small_stack: Make) -> None:
    """Without an init the service itself is the first process, which no signal from inside kills."""
    running = small_stack(compose(one={"init": False}))
    running.up()
    with pytest.raises(CourseError, match="can't be killed from inside"):
        running.crash("one")


# Started again while something is unhealthy


def _broken(stack: Stack, service: str, *more: str) -> dict[str, str]:
    """Takes away what the service's probe looks for; the ids of the containers once these services are unhealthy."""
    stack.project.run("exec", "-T", service, "rm", "/shared/well")
    for name in (service, *more):
        stack.wait_until(name, "unhealthy")
    ids = stack.project.run("ps", "--format={{.Service}} {{.ID}}").output
    return dict(line.split() for line in ids.splitlines())


def _watched(**more: Any) -> dict[str, Any]:
    """A service that is well while a file is there, which it makes when it starts."""
    command = ["sh", "-c", "touch /shared/well; sleep 600"]
    return {
        "command": command,
        "volumes": ["shared:/shared"],
        **probe("test", "-e", "/shared/well", interval="2s"),
        **more,
    }


def test_a_service_that_has_just_recovered(small_stack: Make) -> None:
    """It was overloaded a moment ago, and its state still says so: that is no reason to take the stack down."""
    waits_for_it = {"depends_on": {"one": {"condition": "service_healthy"}}}
    running = small_stack(compose(one=_watched(), two=waits_for_it, top={"volumes": {"shared": {}}}))
    running.up()
    before = _broken(running, "one")
    running.project.run("exec", "-T", "one", "touch", "/shared/well")
    assert all(one.well for one in running.up())
    ids = running.project.run("ps", "--format={{.Service}} {{.ID}}").output
    assert dict(line.split() for line in ids.splitlines()) == before, "nothing was started anew"


def test_a_service_whose_dependency_was_stopped(small_stack: Make) -> None:
    """As the RAG service is while its database is away: `up` brings the database back, and waits for who needs it."""
    needs_it = _watched(command=["sleep", "600"], depends_on={"one": {"condition": "service_healthy"}})
    running = small_stack(compose(one=_watched(), two=needs_it, top={"volumes": {"shared": {}}}))
    running.up()
    _broken(running, "one", "two")
    running.stop("one")
    assert all(one.well for one in running.up())


def test_a_service_that_stays_unhealthy(small_stack: Make) -> None:
    running = small_stack(compose(one=_watched(), top={"volumes": {"shared": {}}}))
    running.up()
    _broken(running, "one")
    require_refused(running, "not every service got healthy: one", "running, unhealthy")
