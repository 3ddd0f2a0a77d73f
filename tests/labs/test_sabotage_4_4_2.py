"""Lab 4.4.2's steps fail when the world is not as they say: each step's own cell, on a stack that was tampered with."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from course_lib import images, lab, shell, stacks, waits
from course_lib.authoring import source
from course_lib.errors import CourseError
from course_lib.exercises import stack_scenes
from course_lib.lab import catalog, store
from course_lib.settings import settings
from course_lib.stacks import Stack, gpu
from course_lib.stacks.built_images import STACK

pytestmark = [pytest.mark.docker, pytest.mark.lab]

VOLUMES = "# Volumes\n\nA named volume has a name, and is storage that outlives containers.\n"


def cell(step_id: str) -> str:
    """The source of a step's cell, as the learner runs it."""
    cells = source.read(catalog.lab("4.4.2")).cells
    return "\n".join(c.node.source for c in cells if f"step-{step_id}" in c.tags)


def run(step_id: str, stack: Stack) -> None:
    exec(cell(step_id), {"lab": lab, "stacks": stacks, "stack": stack})


def require_failed(step_id: str, stack: Stack, *words: str) -> None:
    with pytest.raises(CourseError) as failed:
        run(step_id, stack)
    for word in words:
        assert word in str(failed.value)
    assert store.steps(store.run_id())[step_id][0] == "failed"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, inference_image: str) -> Iterator[Stack]:
    """The lab's stack, in a state of this module's own."""
    folder = tmp_path_factory.mktemp("sabotage")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COURSE_STATE_DIR", str(folder / "state"))
        patch.setenv("COURSE_WORK_DIR", str(folder / "work"))
        patch.setenv("COURSE_RUN_ID", "test-sabotage-4-4-2")
        settings.cache_clear()
        lab.begin("4.4.2")
        # Prometheus has a name of its own here, which a test moves to another image: others use the course's.
        variables, own = images.stack_variables(), "course-test/sabotage-prometheus:1"
        shell.run(["docker", "tag", stacks.built_variables(variables)["PROMETHEUS_IMAGE"], own])
        try:
            with stacks.running(stacks.course_stack(variables, variables={"PROMETHEUS_IMAGE": own})) as stack:
                yield stack
        finally:
            shell.run(["docker", "image", "rm", "--force", own], check=False)
    settings.cache_clear()


@pytest.fixture
def stack(whole: Stack) -> Iterator[Stack]:
    """The stack with one document; what a test stops or removes is started again."""
    whole.rag.put("docs/glossary/volumes.md", VOLUMES)
    yield whole
    if {one.service for one in whole.states() if one.well} != set(whole.project.services):
        whole.up()


@contextmanager
def laid_over(stack: Stack, folder: Path, text: str) -> Iterator[Stack]:
    """The running stack with one more Compose file, by which a service differs; afterwards it is itself again."""
    file = folder / "sabotage.yaml"
    file.write_text(text)
    tampered = Stack(replace(stack.project, files=(*stack.project.files, file)))
    tampered.up()
    try:
        yield tampered
    finally:
        stack.up()


def after_up(patch: pytest.MonkeyPatch, then: Callable[[Stack], object]) -> None:
    """Somebody does something as soon as the stack is up."""
    real = Stack.up

    def up(self: Stack, **how: Any) -> Any:
        found = real(self, **how)
        then(self)
        return found

    patch.setattr(Stack, "up", up)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Lets a wait that can't succeed end sooner; it is known by words of what is waited for."""
    real = waits.until

    def only(words: str) -> None:
        def until(probe: Any, **how: Any) -> Any:
            limit = 15 if words in how["what"] else how["timeout"]
            return real(probe, **{**how, "timeout": min(how["timeout"], limit)})

        monkeypatch.setattr(waits, "until", until)

    return only


def test_the_steps_are_the_catalogues() -> None:
    assert all(cell(step.id) for step in catalog.lab("4.4.2").steps)


# 1 · services


def test_1_a_service_that_somebody_stops(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        after_up(patch, lambda self: self.stop("prometheus"))
        require_failed("4.4.2.1", stack, "service prometheus is not running", "exited")


def test_1_a_service_of_another_image(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody starts it again by hand, from a tag of his own."""
    other = "course-test/somebodys-chroma:1"

    def start_another(self: Stack) -> None:
        by_hand = replace(self.project, variables={**self.project.variables, "CHROMA_IMAGE": other})
        by_hand.run("up", "--detach", "--no-build", "--no-deps", "chroma")

    shell.run(["docker", "tag", stack.project.variables["CHROMA_IMAGE"], other])
    try:
        with monkeypatch.context() as patch:
            after_up(patch, start_another)
            require_failed("4.4.2.1", stack, "service chroma runs another image", other)
        stack.up()
    finally:
        shell.run(["docker", "image", "rm", "--force", other])


def test_1_a_name_that_moves_to_another_image(stack: Stack, small_image: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name = stack.project.variables["PROMETHEUS_IMAGE"]
    real = shell.run(["docker", "image", "inspect", "--format={{.Id}}", name]).output
    try:
        with monkeypatch.context() as patch:
            after_up(patch, lambda self: shell.run(["docker", "tag", small_image, name]))
            require_failed("4.4.2.1", stack, f"service prometheus runs another image than {name} is now")
    finally:
        shell.run(["docker", "tag", real, name])


# 2 · networks


def test_2_a_proxy_in_the_databases_network(stack: Stack) -> None:
    network = stack.project.config()["networks"]["back"]["name"]
    (proxy,) = [one.container for one in stack.states() if one.service == "proxy"]
    shell.run(["docker", "network", "connect", network, proxy])
    try:
        require_failed("4.4.2.2", stack, "proxy reached chroma on port 8000 by its name")
    finally:
        shell.run(["docker", "network", "disconnect", network, proxy])


def test_2_a_back_door_to_the_database(stack: Stack) -> None:
    """The database itself is out of reach, and who speaks for it is not."""
    network = stack.project.config()["networks"]["front"]["name"]
    (door,) = [one.container for one in stack.states() if one.service == "database-door"]
    shell.run(["docker", "network", "connect", "--alias=database-door", network, door])
    try:
        require_failed("4.4.2.2", stack, "proxy reached database-door on port 8000 by its name")
    finally:
        shell.run(["docker", "network", "disconnect", network, door])


def test_2_a_database_that_nobody_reaches(stack: Stack) -> None:
    """That the proxy does not get there proves nothing then."""
    stack.stop("chroma")
    require_failed("4.4.2.2", stack, "rag can't reach chroma on port 8000")


def test_2_a_rag_service_without_the_back_network(stack: Stack) -> None:
    with stack_scenes.disconnected(stack, "rag", "back"):
        require_failed("4.4.2.2", stack, "rag can't reach chroma on port 8000")


# 3 · volumes


def test_3_a_volume_in_the_wrong_place(stack: Stack, tmp_path: Path) -> None:
    """The database keeps its files beside it, in memory: all is well until the first restart."""
    volumes = f"['documents:/elsewhere', '{STACK}/chroma/config.yaml:/config.yaml:ro']"
    tmpfs = "['/data:uid=10004,gid=10004', '/tmp:mode=1777']"
    text = f"services: {{ chroma: {{ volumes: !override {volumes}, tmpfs: !override {tmpfs} }} }}"
    with laid_over(stack, tmp_path, text) as tampered:
        tampered.rag.put("docs/glossary/volumes.md", VOLUMES)
        require_failed("4.4.2.3", tampered, "1 documents were stored, and 0 are there now", "named volume")


def test_3_a_stack_that_was_not_taken_down(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Stack, "down", lambda self, **how: None)
        require_failed("4.4.2.3", stack, "still runs in the same container")


def test_3_volumes_that_were_kept(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Stack.down
    with monkeypatch.context() as patch:
        patch.setattr(Stack, "down", lambda self, **how: real(self))
        require_failed("4.4.2.3", stack, "the volume is still the same")


def test_3_nothing_stored_that_could_survive(stack: Stack) -> None:
    for name in stack.rag.documents():
        stack.rag.delete(name)
    require_failed("4.4.2.3", stack, "no documents are stored")


# 4 · GPU allocation


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("{ deploy: { resources: { limits: { memory: 2g } } } }", "reserves no GPU for inference"),
        (
            "{ deploy: { resources: { reservations: { devices: [{ driver: nvidia, count: 1, capabilities: [gpu] }] } } }, healthcheck: { disable: true } }",
            "lost its health check",
        ),
    ],
    ids=["no reservation", "no health check"],
)
def test_4_an_override_that_is_wrong(
    whole: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, override: str, words: str
) -> None:
    file = tmp_path / "compose.gpu.yaml"
    file.write_text(f"services: {{ inference: {override} }}")
    monkeypatch.setattr(gpu, "OVERRIDE", file)
    require_failed("4.4.2.4", whole, words)


def test_4_a_request_that_does_not_reach_the_engine(
    whole: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Something between Compose and the engine drops it: a container that is there already is kept as it is."""
    real = gpu._require_configured

    def then_create_one_without(project: stacks.Project, service: str) -> None:
        real(project, service)
        plain = replace(project, files=whole.project.files)
        plain.prepare()

    monkeypatch.setattr(gpu, "_require_configured", then_create_one_without)
    require_failed("4.4.2.4", whole, "created without a GPU request")


# 5 · health checks


def test_5_a_service_that_nobody_asks(stack: Stack, tmp_path: Path) -> None:
    with laid_over(stack, tmp_path, "services: { alertmanager: { healthcheck: { disable: true } } }") as tampered:
        require_failed("4.4.2.5", tampered, "service alertmanager has no health check")


def test_5_a_service_that_is_not_healthy(stack: Stack) -> None:
    stack.stop("blackbox")
    require_failed("4.4.2.5", stack, "service blackbox is not healthy", "exited")


def test_5_a_service_that_is_gone(stack: Stack) -> None:
    stack.project.run("rm", "--stop", "--force", "traces")
    require_failed("4.4.2.5", stack, "service traces has no container")


# 6 · ask


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("docs/glossary/images.md", VOLUMES, "no source of the answer is in docs/glossary/volumes"),
        ("docs/glossary/volumes.md", "# Volumes\n\nA volume is storage.\n", "does not speak of 'name'"),
    ],
    ids=["another document", "another answer"],
)
def test_6_an_answer_that_is_not_the_documents(stack: Stack, name: str, text: str, words: str) -> None:
    stack.rag.delete("docs/glossary/volumes.md")
    stack.rag.put(name, text)
    try:
        require_failed("4.4.2.6", stack, words)
    finally:
        stack.rag.delete(name)


def test_6_a_prometheus_that_does_not_scrape_rag(
    stack: Stack, tmp_path: Path, impatient: Callable[[str], None]
) -> None:
    impatient("sum(rag_answers_total)")
    file = tmp_path / "prometheus.yaml"
    config = yaml.safe_load((STACK / "prometheus" / "prometheus.yaml").read_text())
    config["scrape_configs"] = [job for job in config["scrape_configs"] if job["job_name"] != "rag"]
    file.write_text(yaml.safe_dump(config))
    mounted = f"services: {{ prometheus: {{ volumes: ['{file}:/etc/prometheus/prometheus.yaml:ro'] }} }}"
    with laid_over(stack, tmp_path, mounted) as tampered:
        require_failed("4.4.2.6", tampered, "for Prometheus to find", "rag_answers_total")


def test_6_traces_that_get_lost(stack: Stack, tmp_path: Path, impatient: Callable[[str], None]) -> None:
    impatient("the spans of trace")
    nowhere = "services: { rag: { environment: { OTEL_EXPORTER_OTLP_ENDPOINT: 'http://nowhere:4318' } } }"
    began = time.time()
    with laid_over(stack, tmp_path, nowhere) as tampered:
        tampered.prometheus.wait_for(
            f'process_start_time_seconds{{job="rag"}} > {began}'
        )  # and not the last one's count
        require_failed("4.4.2.6", tampered, "for the spans of trace", "no span of rag")


def test_6_a_trace_without_the_database(stack: Stack, tmp_path: Path, impatient: Callable[[str], None]) -> None:
    """The passages come from Chroma as ever, and the trace does not say so."""
    impatient("the spans of trace")
    where = stack.execute("rag", "python3", "-c", "from rag_service import search; print(search.__file__)").output
    seen, unseen = 'with stages.stage("search", "chroma"):', "if True:"
    text = stack.execute("rag", "cat", where).stdout
    assert text.count(seen) == 1
    file = tmp_path / "search.py"
    file.write_text(text.replace(seen, unseen))
    began = time.time()
    with laid_over(stack, tmp_path, f"services: {{ rag: {{ volumes: ['{file}:{where}:ro'] }} }}") as tampered:
        tampered.prometheus.wait_for(f'process_start_time_seconds{{job="rag"}} > {began}')
        require_failed("4.4.2.6", tampered, "for the spans of trace", "no span of a question to chroma")
