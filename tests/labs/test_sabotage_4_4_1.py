"""Lab 4.4.1's steps fail when the world is not as they say: each step's own cell, on a sabotaged world."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from course_lib import bench, images, lab, ledger, shell
from course_lib.authoring import source
from course_lib.errors import CourseError
from course_lib.images import bases as bases_module
from course_lib.images import course_image
from course_lib.images.engine_client import client
from course_lib.lab import catalog, store

pytestmark = [pytest.mark.docker, pytest.mark.lab]


def cell(step_id: str) -> str:
    """The source of a step's cell, as the learner runs it."""
    cells = source.read(catalog.lab("4.4.1")).cells
    return "\n".join(c.node.source for c in cells if f"step-{step_id}" in c.tags)


def run(step_id: str, **names: Any) -> None:
    exec(cell(step_id), {"lab": lab, "images": images, "bench": bench, "shell": shell, "load_requests": 5, **names})


def require_failed(step_id: str, words: str, **names: Any) -> None:
    with pytest.raises(CourseError) as failed:
        run(step_id, **names)
    assert words in str(failed.value)
    assert store.steps(store.run_id())[step_id][0] == "failed"


@pytest.fixture(autouse=True)
def _own_state(fresh_state: Path, inference_image: str) -> None:
    lab.begin("4.4.1")


@pytest.fixture
def sabotage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Callable[[Path], None]], None]]:
    """Builds from a copy of the server's folder that was tampered with, under a name of its own."""
    name = "course-test/sabotaged"

    def tamper(change: Callable[[Path], None]) -> None:
        copy = tmp_path / "inference-server"
        shutil.copytree(course_image.SERVER, copy, ignore=shutil.ignore_patterns("training", "tests", "__pycache__"))
        change(copy)
        monkeypatch.setattr(course_image, "SERVER", copy)
        monkeypatch.setattr(course_image, "name", lambda: name)

    yield tamper
    for image in client().images.list(filters={"reference": f"{name}*"}):
        for tag in (t for t in image.tags if t.startswith(name)):
            shell.run(["docker", "image", "rm", "--force", tag], show=False, check=False)


def in_dockerfile(old: str, new: str) -> Callable[[Path], None]:
    def change(context: Path) -> None:
        path = context / "Dockerfile"
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    return change


def wrong_labels(context: Path) -> None:
    """A server that answers, quickly and wrongly."""
    for description in (context / "models" / "digits").glob("*/model.json"):
        model = json.loads(description.read_text())
        model["labels"] = model["labels"][::-1]
        description.write_text(json.dumps(model))


@contextmanager
def container_removed_as_soon_as_it_starts() -> Iterator[None]:
    """Somebody else removes every container of this session (and of no other on this engine)."""
    mine = f"{ledger.LABEL}.session={ledger.Session.current().id}"
    events = client().api.events(decode=True, filters={"type": "container", "event": "start", "label": mine})

    def remove() -> None:
        for event in events:
            shell.run(["docker", "rm", "--force", event["Actor"]["Attributes"]["name"]], show=False, check=False)

    thread = threading.Thread(target=remove, daemon=True)
    thread.start()
    try:
        yield
    finally:
        events.close()
        thread.join(10)


def test_1_an_image_that_stands_on_something_else(sabotage: Any, tmp_path: Path) -> None:
    """The same files, not the same base: a flattened copy has no layer in common with it."""
    name, flat = "course-test-flatten", "course-test/flat:1"
    shell.run(["docker", "create", f"--name={name}", bases_module.ensure().runtime])
    try:
        shell.pipe(["docker", "export", name], ["docker", "import", "-", flat])
    finally:
        shell.run(["docker", "rm", "--force", name])
    sabotage(in_dockerfile("FROM ${BASE_IMAGE} AS runtime", f"FROM {flat} AS runtime"))
    try:
        require_failed("4.4.1.1", "does not stand on")
    finally:
        shell.run(["docker", "image", "rm", "--force", flat], check=False)


def _named(**more: Any) -> dict[str, Any]:
    """What the cells before a step would have left: the image, and the bases."""
    return {"bases": images.ensure_bases(), "image": images.build_inference_image().reference, **more}


def test_2_a_package_that_is_not_the_locked_one(sabotage: Any) -> None:
    sabotage(
        in_dockerfile(
            "RUN /opt/venv/bin/python3 /build/warm_imports.py", "RUN rm -r /opt/venv/lib/python3*/site-packages/jinja2*"
        )
    )
    require_failed("4.4.1.2", "jinja2: missing in the image", **_named())


def test_2_packages_that_do_not_fit_each_other(sabotage: Any) -> None:
    """All the locked ones are there, and one more whose requirement is not."""
    wants = "Metadata-Version: 2.1\\nName: wants-more\\nVersion: 1\\nRequires-Dist: not-there>=2\\n"
    made = f"d=$(echo /opt/venv/lib/python3*/site-packages)/wants_more-1.dist-info && mkdir $d && printf '{wants}' > $d/METADATA"
    sabotage(in_dockerfile("RUN /opt/venv/bin/python3 /build/warm_imports.py", f"RUN {made}"))
    require_failed("4.4.1.2", "not-there", **_named())


def test_3_a_compiler_in_the_final_image(sabotage: Any) -> None:
    sabotage(in_dockerfile("USER 10001", "RUN cp /bin/true /usr/local/bin/gcc\nUSER 10001"))
    require_failed("4.4.1.3", "a compiler: /usr/local/bin/gcc", **_named())


def test_3_one_stage_that_is_called_two(sabotage: Any) -> None:
    sabotage(in_dockerfile("FROM ${BASE_IMAGE} AS runtime", "FROM builder AS runtime"))
    require_failed("4.4.1.3", "layers of its own building", **_named())


def test_4_a_server_that_answers_wrongly(sabotage: Any) -> None:
    sabotage(wrong_labels)
    require_failed("4.4.1.4", "digits right", **_named())


def test_4_a_container_that_somebody_removes(inference_image: str) -> None:
    with container_removed_as_soon_as_it_starts():
        require_failed("4.4.1.4", "is gone", image=inference_image)


@pytest.mark.parametrize(
    ("check", "words"),
    [
        ("HEALTHCHECK NONE", "has no HEALTHCHECK"),
        ('HEALTHCHECK CMD ["true"]', "to be unhealthy"),
        ('HEALTHCHECK CMD ["false"]', "is unhealthy"),
    ],
    ids=["none", "always healthy", "always unhealthy"],
)
def test_5_a_health_check_that_does_not_notice(sabotage: Any, check: str, words: str) -> None:
    def change(context: Path) -> None:
        with (context / "Dockerfile").open("a") as dockerfile:
            dockerfile.write(check + "\n")

    sabotage(change)
    require_failed("4.4.1.5", words, **_named())


def test_6_a_server_that_answers_wrongly(sabotage: Any) -> None:
    sabotage(wrong_labels)
    require_failed("4.4.1.6", "digits right")


def test_6_a_container_that_somebody_removes() -> None:
    with container_removed_as_soon_as_it_starts():
        require_failed("4.4.1.6", "is gone")


def test_6_a_container_of_another_image(monkeypatch: pytest.MonkeyPatch, sabotage: Any) -> None:
    """The tag moves between the start of the container and the look at it."""
    sabotage(in_dockerfile("EXPOSE 8080", "EXPOSE 8080\nLABEL test=moved-tag"))
    real = images.Container.wait_healthy

    def then_move_the_tag(self: images.Container, timeout: float = 60) -> None:
        real(self, timeout)
        moved.append(images.image_id(self.image))
        shell.run(["docker", "tag", bases_module.ensure().runtime, self.image])

    moved: list[str] = []
    monkeypatch.setattr(images.Container, "wait_healthy", then_move_the_tag)
    require_failed("4.4.1.6", "runs another image")
    shell.run(["docker", "image", "rm", *moved], check=False)


def test_7_an_image_that_is_not_smaller(inference_image: str, monkeypatch: pytest.MonkeyPatch) -> None:
    naive = images.build_naive_image().reference
    require_failed("4.4.1.7", "is not smaller", image=naive)


def test_7_an_image_that_is_gone() -> None:
    require_failed("4.4.1.7", "has no image", image="course-test/never:built")
