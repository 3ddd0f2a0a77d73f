"""The course's stack while it runs: it scales, survives a crash, says what is wrong, is backed up, and lives beside another."""

from __future__ import annotations

import json
import shutil
import ssl
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from course_lib import shell, stacks, waits
from course_lib.errors import CourseError
from course_lib.exercises import stack_scenes
from course_lib.settings import CHECKOUT
from course_lib.stacks import Stack
from course_lib.steady_load import SteadyLoad
from tests.stacks.conftest import objects

pytestmark = pytest.mark.docker

CHAT = {"model": "tutor", "messages": [{"role": "user", "content": "What is an image layer?"}], "max_tokens": 8}
ALWAYS = {"proxy", "inference", "rag", "chroma", "prometheus", "alertmanager", "blackbox", "traces"}


def started(stack: Stack, service: str) -> list[str]:
    """When each container of a service was started."""
    names = [one.container for one in stack.states() if one.service == service]
    return shell.run(["docker", "inspect", "--format={{.State.StartedAt}}", *names], show=False).output.split()


def predictions(stack: Stack) -> dict[str, float]:
    """How many requests each replica says it has answered."""
    found = {}
    for one in stack.states():
        if one.service == "inference":
            ask = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:8080/metrics').read().decode())"
            text = shell.run(["docker", "exec", one.container, "python3", "-c", ask], show=False).stdout
            lines = [
                line for line in text.splitlines() if line.startswith("http_requests_total") and '"/predict"' in line
            ]
            found[one.container] = sum(float(line.split()[-1]) for line in lines)
    return found


def test_what_the_lab_wants_of_it(course_stack: Stack) -> None:
    stacks.require_services(course_stack, "inference", "chroma", "prometheus")
    stacks.require_all_healthy(course_stack)
    answer = stacks.require_answer(course_stack, "What is a named volume?", source="volumes", about="outlives")
    assert answer.grounded and not answer.cached


def test_replicas_reach_nginx_without_a_restart_and_are_all_asked(course_stack: Stack) -> None:
    doors = started(course_stack, "proxy")
    for count in (3, 2):
        course_stack.scale("inference", count)
        before = predictions(course_stack)
        assert len(before) == count
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda _: stack_scenes.ask(course_stack), range(30)))
        more = {name: after - before[name] for name, after in predictions(course_stack).items()}
        assert sum(more.values()) == 30 and all(more.values()), more
        course_stack.prometheus.wait_for(f'count(up{{job="inference"}} == 1) == {count}', timeout=120)
        targets = course_stack.prometheus.targets()
        assert targets[targets["job"] == "inference"]["instance"].nunique() >= count
    assert started(course_stack, "proxy") == doors


def wait_for_more_than(count: int, load: SteadyLoad) -> None:
    """A client that gets no time to compute sends less than its rate."""

    def probe() -> None:
        if len(load.sent) <= count:
            raise waits.NotYet(f"{len(load.sent)} answers")

    waits.until(probe, what="the load", timeout=120)


def test_a_replica_that_crashes_under_load_loses_nothing(course_stack: Stack) -> None:
    course_stack.scale("inference", 3)
    with stack_scenes.load(course_stack, CHAT, rate=15) as load:
        load.run_for(1.5)
        victim = course_stack.crash("inference")
        load.run_for(3)
        wait_for_more_than(30, load)
    assert [one.error for one in load.lost] == [] and len(load.sent) > 30
    assert {one.status for one in load.sent} == {200}

    def crashed() -> None:
        if not [one for one in course_stack.states() if one.container == victim and one.restarts]:
            raise waits.NotYet("the engine has not started it again")

    waits.until(crashed, what="the crash to be seen", timeout=60)
    course_stack.wait_healthy()
    course_stack.scale("inference", 1)


def test_load_that_is_lost_is_counted(course_stack: Stack) -> None:
    """The measure itself: with the only replica stopped, nothing is answered."""
    course_stack.stop("inference")
    try:
        with stack_scenes.load(course_stack, CHAT, rate=10) as load:
            wait_for_more_than(5, load)
        assert len(load.lost) == len(load.sent) > 5
    finally:
        course_stack.start("inference")


def test_backup_and_restore(course_stack: Stack) -> None:
    before = course_stack.rag.documents()
    assert before
    course_stack.backup("test.jsonl.gz")
    stack_scenes.lose_documents(course_stack)
    assert course_stack.rag.documents() == {}
    course_stack.restore("test.jsonl.gz")
    assert course_stack.rag.documents() == before
    stacks.require_answer(course_stack, "What is a named volume?", source="volumes", about="outlives")


def test_a_restore_of_a_file_that_is_not_there_changes_nothing(course_stack: Stack) -> None:
    before = course_stack.rag.documents()
    with pytest.raises(CourseError) as failed:
        course_stack.restore("never-made.jsonl.gz")
    assert "never-made.jsonl.gz" in failed.value.why and course_stack.rag.documents() == before


def test_an_alert_fires_and_resolves_while_users_are_told(course_stack: Stack) -> None:
    course_stack.stop("chroma")
    try:
        with pytest.raises(CourseError) as told:
            course_stack.rag.answer("What is a volume?")
        assert "answered 503" in told.value.what and "chroma" in told.value.why
        alert = stacks.wait_firing(course_stack, "VectorDatabaseDown")
        assert alert.severity == "critical" and alert.summary
        assert alert.runbook == Path(alert.runbook).resolve() and alert.runbook.name == "VectorDatabaseDown.md"
        assert alert.runbook.read_text().startswith("# VectorDatabaseDown")
    finally:
        course_stack.start("chroma")
    stacks.wait_resolved(course_stack, "VectorDatabaseDown")
    assert course_stack.rag.answer("What is a named volume?").sources


def test_an_alert_that_does_not_exist_says_which_do(course_stack: Stack) -> None:
    with pytest.raises(CourseError, match="no alert DatabaseOnFire") as failed:
        stacks.wait_firing(course_stack, "DatabaseOnFire")
    assert "VectorDatabaseDown" in failed.value.do


def test_a_network_that_was_taken_away_is_told_from_a_database_that_is_down(course_stack: Stack) -> None:
    stacks.wait_resolved(course_stack, "VectorDatabaseDown")
    with stack_scenes.disconnected(course_stack, "rag", "back"):
        stacks.wait_firing(course_stack, "RagDependencyDown")
        assert "VectorDatabaseDown" not in {one["labels"]["alertname"] for one in course_stack.alerts()}
    course_stack.wait_healthy()
    stacks.wait_resolved(course_stack, "RagDependencyDown")


def test_an_alert_that_does_not_fire_says_what_does(course_stack: Stack) -> None:
    with pytest.raises(waits.WaitTimeout, match="the alert ProxyDown to fire") as failed:
        stacks.wait_firing(course_stack, "ProxyDown", timeout=1)
    assert "fires" in failed.value.why or "(" in failed.value.why


def test_a_second_stack_in_production_lives_beside_the_first(course_stack: Stack, stack_images: dict[str, str]) -> None:
    """Neither sees the other's documents, takes the other's keys, or ends with it; and production differs where it says so."""
    before = objects(course_stack)
    values = stacks.env_values(production=True) | {"BACKUP_SECONDS": "5"}
    profile = values.pop("COMPOSE_PROFILES")
    production = stacks.course_stack(stack_images, short="shared-2", profiles=(profile,), variables=values)

    def kept() -> None:
        if ".jsonl.gz" not in (found := production.execute("backup", "ls", "/backups").output):
            raise waits.NotYet(found)

    with stacks.running(production) as second:
        assert {one.service for one in second.states()} == ALWAYS | {"backup"}, "no door to the database"
        assert sum(one.service == "inference" for one in second.states()) == 2
        assert second.url != course_stack.url and second.key != course_stack.key
        (keeper,) = [one for one in second.states() if one.service == "backup"]
        assert keeper.health == "healthy", "though there is nothing to copy yet"
        assert second.rag.documents() == {} and course_stack.rag.documents()
        trusts_the_first = ssl.create_default_context(cafile=str(course_stack.ca))
        with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            httpx.get(f"{second.url}/healthz", verify=trusts_the_first, trust_env=False)
        with second.http() as http:
            refused = http.post("/predict", json={}, headers={"Authorization": f"Bearer {course_stack.key}"})
        assert refused.status_code == 401
        assert not objects(second) & before
        second.rag.put("a.md", "# A\n\nA backup is a copy.")
        waits.until(kept, what="a backup", timeout=120)
    assert objects(second) == set() and objects(course_stack) == before
    course_stack.wait_healthy()  # two stacks at once may have been too much for a probe
    stacks.require_all_healthy(course_stack)


def test_a_service_crashes_and_comes_back(course_stack: Stack) -> None:
    before = started(course_stack, "rag")

    def again() -> None:
        if started(course_stack, "rag") == before:
            raise waits.NotYet("it is the run of before")

    course_stack.crash("rag")
    waits.until(again, what="rag to be started again", timeout=60, every=0.3)
    course_stack.wait_healthy()


def test_a_learners_own_model_is_served_and_can_not_be_written_to(course_stack: Stack, tmp_path: Path) -> None:
    folder = tmp_path / "models"
    model = folder / "mine" / "1"
    shutil.copytree(CHECKOUT / "docker" / "inference-server" / "models" / "digits" / "1", model)
    card = json.loads((model / "model.json").read_text())
    (model / "model.json").write_text(json.dumps(card | {"name": "mine"}))
    folder.chmod(0o777)  # only the mount forbids it
    values = {**course_stack.project.variables, "MODEL_FOLDER": str(folder), "MODEL_PATH": "/models/own"}
    own = Stack(replace(course_stack.project, variables=values))
    try:
        own.up(services=("inference",))
        with own.http() as http:
            listed = http.get("/models").json()["models"]
            answer = http.post("/predict", json={"model": "mine", "inputs": [0.0] * 64})
        assert [one["name"] for one in listed] == ["mine"]
        assert answer.status_code == 200 and answer.headers["X-Model-Name"] == "mine"
        written = own.execute("inference", "touch", "/models/own/written", check=False)
        assert "Read-only file system" in written.stderr and [one.name for one in folder.iterdir()] == ["mine"]
    finally:
        course_stack.up()
