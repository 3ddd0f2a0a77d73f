"""The Compose files: valid in every combination, and each service of them bounded, closed and asked how it is."""

from __future__ import annotations

import json
import os
import re
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from course_lib import shell, stacks
from course_lib.cli.commands import app
from course_lib.settings import CHECKOUT

pytestmark = pytest.mark.docker

STACK = CHECKOUT / "docker" / "stack"
COMBINATIONS = (
    "compose",
    "compose debian",
    "compose gpu",
    "compose debian gpu",
    "compose gpu cdi",
    "compose debian gpu cdi",
)
#: Variable of the Compose files: name in images.toml.
IMAGES = {
    "NGINX_IMAGE": "nginx",
    "CHROMA_IMAGE": "chroma",
    "PROMETHEUS_IMAGE": "prometheus",
    "ALERTMANAGER_IMAGE": "alertmanager",
    "BLACKBOX_IMAGE": "blackbox",
    "DCGM_IMAGE": "dcgm-exporter",
    "NODE_EXPORTER_IMAGE": "node-exporter",
    "OLLAMA_IMAGE": "ollama",
    "VLLM_IMAGE": "vllm",
    "BASE_IMAGE": "python-slim",
    "BUILDER_IMAGE": "python-full",
}
#: What the makers of these programs have not said they can do without; none was run on a GPU yet.
NEEDS_MORE = {"dcgm": {"read_only", "no-new-privileges"}, "ollama": {"read_only"}, "vllm": {"read_only"}}


@cache
def config(combination: str, profiles: str) -> dict[str, Any]:
    """What Compose makes of the files, with defaults for everything that has one."""
    files = [f"--file={STACK / name}.yaml" for name in _names(combination)]
    given = {"INFERENCE_IMAGE": "inference-server:1", "COMPOSE_PROFILES": profiles}
    command = ["docker", "compose", f"--env-file={os.devnull}", *files, "config", "--format=json"]
    return dict(json.loads(shell.run(command, show=False, env=given, timeout=60).stdout))


def _names(combination: str) -> list[str]:
    return [name if name == "compose" else f"compose.{name}" for name in combination.split()]


@pytest.mark.parametrize(
    ("combination", "profiles"),
    [
        *((combination, profiles) for combination in COMBINATIONS for profiles in ("", "*")),
        *(("compose debian", profiles) for profiles in ("development", "production", "development,production")),
    ],
)
def test_every_combination_is_valid(combination: str, profiles: str) -> None:
    services = set(config(combination, profiles)["services"])
    always = {"proxy", "inference", "rag", "chroma", "prometheus", "alertmanager", "blackbox", "traces"}
    assert always <= services
    assert ("database-door" in services) == (profiles == "*" or "development" in profiles)
    assert ("backup" in services) == (profiles == "*" or "production" in profiles)
    assert ("dcgm" in services) == ("gpu" in combination)
    assert "cache-image" not in services or profiles == "*"  # it is there to be built


@pytest.mark.parametrize("combination", ["compose", "compose debian gpu cdi"])
def test_each_service_is_bounded_closed_and_asked(combination: str) -> None:
    for name, service in config(combination, "*")["services"].items():
        if name == "cache-image":
            continue  # never started
        limits = service["deploy"]["resources"]["limits"]
        assert float(limits["cpus"]) > 0 and int(limits["memory"]) > 0, name
        assert service["healthcheck"].get("test") or service["healthcheck"]["disable"], name
        assert re.search(r":[^/:]+$", service["image"]) and not service["image"].endswith(":latest"), service["image"]
        assert all(port["host_ip"] == "127.0.0.1" for port in service.get("ports", [])), f"others get in at {name}"
        for key, value in (service.get("environment") or {}).items():
            if re.search(r"KEY|TOKEN|PASSWORD|SECRET|CREDENTIAL", key):
                assert key.endswith("_FILE") and value.startswith("/run/secrets/"), f"{name}: {key}"
        waits_for = (service.get("depends_on") or {}).values()
        assert all(one["condition"] == "service_healthy" for one in waits_for), name
        assert not service.get("privileged") and "container_name" not in service, f"{name}: one stack alone could live"
        closed = {
            "read_only": service.get("read_only", False),
            "cap_drop": service.get("cap_drop") == ["ALL"],
            "no-new-privileges": "no-new-privileges:true" in service.get("security_opt", []),
        }
        assert {key for key, kept in closed.items() if not kept} == NEEDS_MORE.get(name, set()), name


def test_a_health_check_that_is_switched_off_says_why() -> None:
    for file in STACK.glob("compose*.yaml"):
        for line in file.read_text().splitlines():
            assert "disable: true" not in line or re.search(r"# \S+ \S+ \S+", line), f"{file.name}: {line}"


def test_the_database_is_on_the_back_network_alone_and_that_has_no_way_out() -> None:
    merged = config("compose debian gpu", "*")
    assert set(merged["services"]["chroma"]["networks"]) == {"back"}
    assert merged["networks"]["back"]["internal"] and not merged["networks"]["front"].get("internal")
    beside = {name for name, what in merged["services"].items() if "back" in what.get("networks", {})}
    assert beside == {"chroma", "rag", "blackbox", "database-door", "backup"}
    # It asks the database for whoever asks it: nobody but this machine may.
    assert set(merged["services"]["database-door"]["networks"]) == {"back", "desk"}
    assert [name for name, what in merged["services"].items() if "desk" in what.get("networks", {})] == [
        "database-door"
    ]


def test_a_restore_asks_the_embedder_that_rag_asks() -> None:
    given = {"EMBEDDINGS_URL": "http://ollama:11434/v1", "EMBEDDINGS_MODEL": "all-minilm"}
    more = {"INFERENCE_IMAGE": "inference-server:1", "COMPOSE_PROFILES": "production"}
    services = stacks.merged([STACK / "compose.yaml"], given | more, env_files=[os.devnull])["services"]
    asked = services["backup"]["environment"]
    assert given.items() <= asked.items() <= services["rag"]["environment"].items()


@pytest.mark.parametrize("file", sorted(STACK.glob("compose*.yaml")), ids=lambda p: p.name)
def test_a_file_has_no_version(file: Any) -> None:
    """Compose has ignored it for years, and warns."""
    assert "version" not in yaml.safe_load(re.sub(r"!override\b", "", file.read_text()))


@pytest.mark.parametrize("variable", IMAGES)
def test_image_tags_are_those_of_the_table(variable: str) -> None:
    """What a hand-typed `docker compose up` takes must not drift from what the course pins."""
    table = tomllib.loads((CHECKOUT / "docker" / "base" / "images.toml").read_text())
    text = "".join((STACK / name).read_text() for name in ("compose.yaml", "compose.gpu.yaml"))
    named = set(re.findall(rf"\$\{{{variable}:-([^}}]+)\}}", text))
    assert named == {table[IMAGES[variable]]["reference"]}


def test_gpu_reservations_by_driver_or_by_name() -> None:
    for combination, driver in (("compose gpu", "nvidia"), ("compose gpu cdi", "cdi")):
        services = config(combination, "*")["services"]
        for name in ("inference", "dcgm", "ollama", "vllm"):
            (device,) = services[name]["deploy"]["resources"]["reservations"]["devices"]
            assert device["driver"] == driver and device["capabilities"] == ["gpu"], (combination, name)
        assert services["inference"]["healthcheck"]["test"] and services["inference"]["secrets"], "nothing got lost"


@pytest.mark.parametrize(
    ("combination", "file"),
    [
        ("compose debian", "rules/limits.yaml"),
        ("compose gpu", "limits.gpu.yaml"),
        ("compose gpu cdi", "limits.gpu.yaml"),
    ],
)
def test_prometheus_reads_the_limits_that_hold(combination: str, file: str) -> None:
    """The mount that goes deepest is the one that is seen."""
    mounts = {one["target"]: one["source"] for one in config(combination, "")["services"]["prometheus"]["volumes"]}
    target = "/etc/prometheus/rules/limits.yaml"
    under = mounts["/etc/prometheus/rules"] + "/limits.yaml"
    assert mounts.get(target, under) == str(STACK / "prometheus" / file)


@pytest.mark.parametrize(
    ("env_files", "shell_says", "replicas"),
    [
        ((os.devnull,), {}, 1),
        ((".env",), {}, 1),
        ((".env", ".env.production"), {}, 2),
        ((".env.production", ".env"), {}, 1),
        ((".env", ".env.production"), {"INFERENCE_REPLICAS": "5"}, 5),
    ],
)
def test_the_shell_wins_then_the_last_env_file(
    env_files: tuple[str, ...], shell_says: dict[str, str], replicas: int
) -> None:
    given = {"INFERENCE_IMAGE": "inference-server:1", **shell_says}
    merged = stacks.merged([STACK / "compose.yaml"], given, env_files=[STACK / name for name in env_files])
    assert merged["services"]["inference"]["deploy"]["replicas"] == replicas
    assert ("backup" in merged["services"]) == (env_files[-1] == ".env.production")


def test_the_command_starts_production_with_what_the_file_changes(stack_images: dict[str, str], own_work: Path) -> None:
    changed = {"LOG_LEVEL": "warning", "METRICS_RETENTION": "15d", "COMPOSE_PROFILES": "production"}
    for options, replicas in ((["--production"], "2"), (["--production", "--replicas=3"], "3")):
        said = CliRunner().invoke(app, ["stack", "--env", *options])
        assert said.exit_code == 0, said.output
        lines = (own_work / "work" / "stack" / "by-hand" / ".env").read_text().splitlines()
        written = {key: value.strip("'") for key, value in (line.split("=", 1) for line in lines)}
        assert changed.items() <= written.items() and written["INFERENCE_REPLICAS"] == replicas
