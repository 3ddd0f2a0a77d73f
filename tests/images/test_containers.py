"""Containers: waits that explain, ports that are taken, names that are somebody else's; nothing stays behind."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from course_lib import images, ledger, shell
from course_lib.errors import CourseError
from course_lib.images import buildkit, containers, gpu
from course_lib.images.engine_client import client
from course_lib.settings import settings

pytestmark = pytest.mark.docker


@pytest.fixture(autouse=True)
def _nothing_stays(fresh_state: Path) -> Iterator[None]:
    yield
    mine = ledger.labels()
    left = client().containers.list(all=True, filters={"label": [f"{k}={v}" for k, v in mine.items()]})
    for container in left:
        container.remove(force=True)
    assert left == [], [c.name for c in left]
    assert [row for row in ledger.rows() if row.kind == "container"] == []


@pytest.fixture
def name() -> str:
    return f"test-{os.urandom(4).hex()}"


@pytest.fixture(scope="module")
def with_health(small_image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Healthy while /ok exists."""
    context = tmp_path_factory.mktemp("health")
    (context / "Dockerfile").write_text(
        f"FROM {small_image}\nRUN touch /ok\n"
        'HEALTHCHECK --interval=1s --retries=1 CMD test -e /ok || { echo "no /ok"; exit 1; }\n'
        'CMD ["sh", "-c", "echo started; sleep 300"]\n'
    )
    yield buildkit.build(context, tag="course-test/with-health:1").reference
    shell.run(["docker", "image", "rm", "--force", "course-test/with-health:1"], show=False, check=False)
    ledger.strike("image", "course-test/with-health:1")


def test_health_is_followed_both_ways(with_health: str, name: str) -> None:
    with images.running(with_health, name, port=None) as container:
        container.wait_healthy(120)
        container.execute("rm", "/ok")
        container.wait_unhealthy(120)
        assert "no /ok" in container.last_probe()
        with pytest.raises(CourseError, match="is unhealthy") as failed:
            container.wait_healthy(120)
        assert "no /ok" in failed.value.why and "started" in failed.value.why


def test_a_wait_ends_at_once_when_the_container_ended(with_health: str, name: str) -> None:
    with images.running(
        with_health, name, port=None, arguments=["sh", "-c", "echo no such model; exit 7"]
    ) as container:
        with pytest.raises(CourseError, match="ended before it was healthy") as failed:
            container.wait_healthy(60)
        assert "exit code 7" in failed.value.why and "no such model" in failed.value.why


def test_a_wait_that_runs_out_shows_state_and_log(with_health: str, name: str) -> None:
    with images.running(with_health, name, port=None) as container:
        container.wait_healthy(120)
        with pytest.raises(CourseError, match="to be unhealthy") as failed:
            container.wait_unhealthy(2)
        assert "State: running" in failed.value.why and "started" in failed.value.why


def test_an_image_without_a_health_check_is_told_at_once(small_image: str, name: str) -> None:
    with (
        pytest.raises(CourseError, match="has no HEALTHCHECK"),
        images.running(small_image, name, port=None, arguments=["sleep", "60"]) as container,
    ):
        container.wait_healthy(60)


def test_a_port_that_is_taken(small_image: str, name: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        publish = f"--publish=127.0.0.1:{taken.getsockname()[1]}:8080"
        with (
            pytest.raises(CourseError, match="the port is taken"),
            images.running(small_image, name, port=None, options=[publish], arguments=["sleep", "60"]),
        ):
            pytest.fail("it started on a port that is taken")


def test_the_engine_chooses_a_free_port_of_loopback(small_image: str, name: str) -> None:
    with images.running(small_image, name, arguments=["python3", "-m", "http.server", "8080"]) as container:
        (binding,) = container.inspect()["NetworkSettings"]["Ports"]["8080/tcp"]
        assert binding == {"HostIp": "127.0.0.1", "HostPort": str(container.port)}


def test_a_container_that_publishes_nothing_does_not_stay(small_image: str, name: str) -> None:
    """As one that ends at once: a container without a network never gets a port."""
    with pytest.raises(CourseError, match="has no published port") as refused:
        containers.start(
            small_image, name, options=["--network=none"], arguments=["sh", "-c", "echo last words; sleep 60"]
        )
    assert "State: running" in refused.value.why
    assert not client().containers.list(all=True, filters={"name": settings().object_name(name)})


def test_a_container_of_another_living_notebook_is_not_taken_away(small_image: str, name: str) -> None:
    full = settings().object_name(name)
    other = ledger.Session.of(os.getppid())
    marks = [f"--label={ledger.LABEL}.checkout={settings().checkout_id}", f"--label={ledger.LABEL}.session={other.id}"]
    shell.run(["docker", "create", f"--name={full}", *marks, small_image])
    try:
        with pytest.raises(CourseError, match="another notebook"), images.running(small_image, name):
            pytest.fail("it was taken away")
    finally:
        shell.run(["docker", "rm", full])


def test_an_image_that_is_not_there(name: str) -> None:
    with pytest.raises(CourseError, match="the engine has no image"), images.running("course-test/never:built", name):
        pytest.fail("it started")


def test_somebody_elses_container_is_not_replaced(small_image: str, name: str) -> None:
    full = settings().object_name(name)
    shell.run(["docker", "create", f"--name={full}", small_image])
    try:
        with pytest.raises(CourseError, match="the course did not make it"), images.running(small_image, name):
            pytest.fail("it was replaced")
        assert client().api.inspect_container(full)
    finally:
        shell.run(["docker", "rm", full])


def test_a_container_that_was_left_by_an_earlier_try_is_replaced(small_image: str, name: str) -> None:
    first = containers.start(small_image, name, port=None, arguments=["sleep", "60"])
    before = first.inspect()["Id"]
    with images.running(small_image, name, port=None, arguments=["sleep", "60"]) as second:
        assert second.inspect()["Id"] != before


def test_a_gpu_request_is_read_back_and_refused_here(small_image: str) -> None:
    outcome = images.request_gpus(small_image)
    if not outcome.used:
        assert "could not select device driver" in outcome.said or "CDI" in outcome.said
        assert outcome.options == ()


def test_a_container_that_starts_and_cannot_compute_is_an_error(small_image: str, name: str) -> None:
    """As on a host whose toolkit hands over a device without the driver's library: no GPU is no news, a broken one is."""
    full = settings().object_name(name)
    shell.run(["docker", "create", "--interactive", f"--name={full}", "--entrypoint=python3", small_image, "-"])
    try:
        with pytest.raises(CourseError, match="could not compute with CUDA") as refused:
            gpu._start(full)
        assert "libcuda.so.1" in refused.value.why
    finally:
        shell.run(["docker", "rm", "--force", full])
