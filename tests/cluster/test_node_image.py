"""Which image nodes are, and how it is carried to a machine without a network."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from course_lib import shell
from course_lib.cluster import fallback_node, node_image
from course_lib.errors import CourseError
from course_lib.settings import settings

pytestmark = pytest.mark.docker

NODE, METRICS = "course-test/some-node:1", "course-test/some-metrics:1"


@pytest.fixture
def images(small_image: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A node's image and a metrics server's, which are neither, but images."""
    monkeypatch.setattr(node_image, "metrics_image", lambda: METRICS)
    for name in (NODE, METRICS):
        shell.run(["docker", "image", "tag", small_image, name], show=False)
    yield
    _forget()


def _forget() -> None:
    shell.run(["docker", "image", "rm", NODE, METRICS], show=False, check=False)


def _here(name: str) -> bool:
    return shell.succeeds(["docker", "image", "inspect", "--format=1", name])


def test_an_archive_brings_the_metrics_server_too(images: None, tmp_path: Path) -> None:
    archive = tmp_path / "node.tar"
    assert node_image.save(NODE, archive) == archive.stat().st_size
    _forget()
    assert node_image.load(archive) == NODE and _here(METRICS)


def test_an_archive_without_a_metrics_server(images: None, tmp_path: Path) -> None:
    shell.run(["docker", "image", "rm", METRICS], show=False)
    node_image.save(NODE, tmp_path / "node.tar")
    assert node_image.load(tmp_path / "node.tar") == NODE


def test_nothing_is_written_over(images: None, tmp_path: Path) -> None:
    archive = tmp_path / "mine.tar"
    archive.write_text("of mine")
    with pytest.raises(CourseError, match="already there"):
        node_image.save(NODE, archive)
    assert archive.read_text() == "of mine"


def test_an_image_that_is_not_here_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(CourseError):
        node_image.save("course-test/no-node:1", tmp_path / "node.tar")
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_no_archive(tmp_path: Path) -> None:
    (tmp_path / "node.tar").write_text("no archive")
    with pytest.raises(CourseError) as told:
        node_image.load(tmp_path / "node.tar")
    assert "course cluster image save" in told.value.do


def test_the_metrics_server_s_image_has_a_version() -> None:
    name, colon, version = node_image.metrics_image().rpartition(":")
    assert name.endswith("/metrics-server") and colon and version.startswith("v")


@pytest.mark.parametrize(("given", "old"), [(fallback_node.reference(), True), ("kindest/node:v1.99.0", False)])
def test_one_from_packages_is_known_where_it_was_carried_to(
    given: str, old: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Later kinds can't start it, and it has no metrics server to be loaded."""
    monkeypatch.setenv("COURSE_NODE_IMAGE", given)
    settings.cache_clear()
    try:
        chosen = node_image.choose("debian")
    finally:
        settings.cache_clear()
    assert (chosen.reference, chosen.fallback) == (given, old)
    said = shell.run([str(chosen.kind), "version", "--quiet"], show=False).output.removeprefix("v")
    assert not old or tuple(map(int, said.split(".")[:2])) == fallback_node.KIND


def test_another_recipe_is_another_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = fallback_node.reference()
    (tmp_path / "Dockerfile").write_text("FROM scratch")
    monkeypatch.setattr(fallback_node, "RECIPE", tmp_path)
    first = fallback_node.reference()
    (tmp_path / "README.md").write_text("of no matter")
    assert fallback_node.reference() == first != before
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    assert fallback_node.reference() != first
