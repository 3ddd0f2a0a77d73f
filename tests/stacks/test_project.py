"""A Compose project of the course: its values arrive literally, its objects are the course's, and nothing of it stays."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from course_lib import cleanup, ledger, shell
from course_lib.errors import CourseError
from course_lib.settings import settings
from course_lib.stacks import Project, Stack
from tests.stacks.conftest import compose, objects

pytestmark = pytest.mark.docker

Make = Callable[..., Stack]

ONE = compose(one={})
WITH_A_VOLUME = compose(
    one={},
    two={"networks": ["side"], "volumes": ["kept:/kept"], "deploy": {"replicas": 2}},
    top={"networks": {"side": {"internal": True}}, "volumes": {"kept": {}}},
)


# Values


def test_values_arrive_as_they_are(small_stack: Make) -> None:
    values = ["plain", "two words", "a#b", "$HOME ${IMAGE} $$", 'say "so"', r"back\slash\n", "a=b", " edges ", "", "ü✓"]
    given = {f"SAID_{number}": value for number, value in enumerate(values)}
    stack = small_stack(compose(one={"environment": {name: f"${{{name}}}" for name in given}}), **given)
    stack.project.prepare()
    # and in a terminal, where the env file is all there is
    typed = ["docker", "compose", f"--env-file={stack.project.env_file}", "config", "--format=json"]
    for config in (stack.project.config(), json.loads(shell.run(typed, show=False).stdout)):
        arrived = config["services"]["one"]["environment"]
        assert {name: value.replace("$$", "$") for name, value in arrived.items()} == given  # Compose shows $ as $$


@pytest.mark.parametrize("value", ["it's", "two\nlines"])
def test_a_value_that_no_env_file_can_hold_is_refused(small_stack: Make, value: str) -> None:
    with pytest.raises(CourseError, match="can't stand in an env file"):
        small_stack(ONE, SAID=value).project.prepare()


def test_a_folder_with_spaces(own_work: Path, small_image: str) -> None:
    file = own_work / "my own stack" / "compose.yaml"
    file.parent.mkdir()
    file.write_text(ONE)
    project = Project("spaces", (file,), {"IMAGE": small_image})
    project.prepare()
    assert project.services == ("one",)
    project.dispose()


def test_the_shell_does_not_change_what_the_course_runs(small_stack: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    stack = small_stack(compose(one={}, two={"profiles": ["more"]}))
    for name, value in {
        "IMAGE": "somebody/elses:1",
        "COMPOSE_FILE": "/nowhere/compose.yaml",
        "COMPOSE_PROJECT_NAME": "elses",
        "COMPOSE_PROFILES": "more",
        "COMPOSE_ENV_FILES": "/nowhere/.env",
        "COMPOSE_PATH_SEPARATOR": ";",
    }.items():
        monkeypatch.setenv(name, value)
    stack.project.prepare()
    config = stack.project.config()
    assert config["name"] == stack.project.name
    assert {name: what["image"] for name, what in config["services"].items()} == {
        "one": stack.project.variables["IMAGE"]
    }


def test_a_missing_file_says_which(own_work: Path) -> None:
    with pytest.raises(CourseError, match=r"no Compose file compose\.yaml"):
        Project("none", (own_work / "compose.yaml",)).prepare()


# Names, labels, rows


def test_rows_come_before_objects(small_stack: Make) -> None:
    stack = small_stack(WITH_A_VOLUME)
    stack.project.prepare()
    rows = {f"{row.kind} {row.name}" for row in ledger.rows(lifetime="run") if row.kind != "folder"}
    assert objects(stack) == set()
    stack.up()
    name = stack.project.name
    assert objects(stack) == rows
    assert rows == {
        f"container {name}-one-1",
        f"container {name}-two-1",
        f"container {name}-two-2",
        f"network {name}_default",
        f"network {name}_side",
        f"volume {name}_kept",
    }
    stack.scale("two", 3)
    assert ("container", f"{name}-two-3") in {(row.kind, row.name) for row in ledger.rows(lifetime="run")}


def test_every_object_says_whose_it_is(small_stack: Make) -> None:
    stack = small_stack(WITH_A_VOLUME)
    stack.up()
    one_off = f"{stack.project.name}-one-off"
    stack.project.run("run", "--detach", f"--name={one_off}", "one")
    found = objects(stack)
    assert len(found) == 7 and f"container {one_off}" in found
    for kind, name in (one.split() for one in found):
        (seen,) = json.loads(shell.run(["docker", kind, "inspect", name], show=False).stdout)
        labels: dict[str, Any] = seen["Config"]["Labels"] if kind == "container" else seen["Labels"]
        assert labels.items() >= ledger.labels("run").items(), f"{kind} {name}"
        assert name.startswith(settings().object_name("small"))


def test_what_a_learner_names_himself_is_written_down_and_removed_too(small_stack: Make) -> None:
    mine = settings().object_name("of-mine")
    stack = small_stack(compose(one={"volumes": ["kept:/kept"]}, top={"volumes": {"kept": {"name": mine}}}))
    stack.up()
    assert ("volume", mine) in {(row.kind, row.name) for row in ledger.rows(lifetime="run")}
    stack.remove()
    assert not shell.succeeds(["docker", "volume", "inspect", mine]) and ledger.rows(lifetime="run") == []


def test_what_somebody_else_has_made_stays(small_stack: Make) -> None:
    """A name of one's own in a Compose file may be that of a volume with somebody's data."""
    theirs = settings().object_name("theirs")
    stack = small_stack(compose(one={"volumes": ["kept:/kept"]}, top={"volumes": {"kept": {"name": theirs}}}))
    shell.run(["docker", "volume", "create", theirs], show=False)
    try:
        stack.up()
        assert ("volume", theirs) not in {(row.kind, row.name) for row in ledger.rows()}
        stack.remove()
        assert shell.succeeds(["docker", "volume", "inspect", theirs])
    finally:
        shell.run(["docker", "volume", "rm", theirs], show=False)


# Its end


def test_dispose_leaves_nothing(small_stack: Make) -> None:
    stack = small_stack(WITH_A_VOLUME)
    stack.up()
    stack.scale("two", 3)
    stack.scale("two", 1)
    stack.remove()
    assert objects(stack) == set() and not stack.project.folder.exists()
    assert ledger.rows() == [] and cleanup.survey().in_use == []


def test_dispose_works_when_its_folder_is_gone(small_stack: Make) -> None:
    stack = small_stack(WITH_A_VOLUME)
    stack.up()
    shell.run(["rm", "-r", str(stack.project.folder)], show=False)
    stack.remove()
    assert objects(stack) == set() and ledger.rows() == []


def test_down_keeps_the_volumes_unless_told(small_stack: Make) -> None:
    stack = small_stack(WITH_A_VOLUME)
    stack.up()
    stack.down()
    assert objects(stack) == {f"volume {stack.project.name}_kept"}
    stack.down(volumes=True)
    assert objects(stack) == set()


def test_a_stack_whose_name_begins_like_anothers_is_left_alone(small_stack: Make) -> None:
    short, longer = small_stack(ONE, "a"), small_stack(WITH_A_VOLUME, "a-b")
    short.up()
    longer.up()
    before = objects(longer)
    short.remove()
    assert objects(short) == set() and objects(longer) == before
    assert {f"{row.kind} {row.name}" for row in ledger.rows() if row.kind != "folder"} == before
