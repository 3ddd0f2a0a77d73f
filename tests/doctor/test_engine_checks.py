"""What the engine and its client say of themselves: versions, plugins, stores, images."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from machines import INFO, READY, StartDouble, a_machine
from packaging.version import Version

from course_lib.doctor import architecture, base_images, image_store, kubernetes, machine, versions
from course_lib.host.engine import Engine, EngineState


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("0.13.1+ds1", "0.13.1"),
        ("v0.29.1-desktop.1", "0.29.1"),
        ("2.26.1-4", "2.26.1"),
        ("26.1.5+dfsg1", "26.1.5"),
        ("5.0.0-rc.1", "5.0.0"),
        ("devel", "0"),
    ],
)
def test_versions_are_read_in_every_spelling(text: str, version: str) -> None:
    assert versions.parse(text) == Version(version)


@pytest.mark.parametrize(
    ("plugin", "release", "advice"),
    [
        ("compose", {"ID": "debian"}, "apt-get install docker-compose`"),
        ("compose", {"ID": "ubuntu"}, "apt-get install docker-compose-v2`"),
        ("buildx", {"ID": "ubuntu"}, "apt-get install docker-buildx`"),
        ("compose", {"ID": "fedora"}, "package docker-compose-plugin"),
        ("buildx", {}, "Docker Desktop"),
    ],
)
def test_the_remedy_names_the_package(plugin: str, release: dict[str, str], advice: str) -> None:
    assert advice in versions.package_advice(plugin, release)


def _plugin(config: Path, name: str, version: str) -> None:
    """A plugin as the docker client finds it: in the user's folder, which goes before the system's."""
    metadata = {"SchemaVersion": "0.1.0", "Vendor": "Docker Inc.", "Version": version, "ShortDescription": "Docker"}
    program = config / "cli-plugins" / f"docker-{name}"
    program.parent.mkdir(parents=True, exist_ok=True)
    program.write_text(f"#!/bin/sh\necho '{json.dumps(metadata)}'\n")
    program.chmod(0o755)


@pytest.mark.parametrize(("old", "name"), [("v0.10.4", "buildx"), ("2.17.3", "compose"), ("1.29.2", "compose")])
def test_an_old_plugin_is_an_error(
    old: str, name: str, engine_double: StartDouble, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine_double()
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    _plugin(tmp_path, "buildx", "v0.20.0")
    _plugin(tmp_path, "compose", "v2.30.0")
    assert [f.severity for f in versions.examine(machine.look(None))] == ["ok"]
    _plugin(tmp_path, name, old)
    first, second = versions.examine(machine.look(None))
    assert first.severity == "error" and f"{name} {old} is older than" in first.message and name in first.remedy
    assert second.severity == "ok" and name not in second.message


def test_a_missing_plugin_is_an_error_also_without_an_engine() -> None:
    only_buildx = {"ClientInfo": {"Plugins": [{"Name": "buildx", "Version": "v0.20.0"}]}}
    stopped = a_machine(engine=Engine(EngineState.STOPPED, ""), info=only_buildx)
    first, second = versions.examine(stopped)
    assert first.severity == "error" and first.message == "the Docker plugin compose is not installed"
    assert second.severity == "ok"
    assert list(versions.examine(a_machine(engine=Engine(EngineState.NOT_INSTALLED, ""), info={}))) == []


def test_an_old_engine_is_an_error(engine_double: StartDouble) -> None:
    engine_double(ServerVersion="20.10.24+dfsg1")
    found = list(versions.examine(machine.look(None)))
    assert found[0].severity == "error" and "20.10.24+dfsg1 is older than 25.0" in found[0].message


def test_the_two_image_stores_are_told_apart(engine_double: StartDouble) -> None:
    engine_double(Driver="overlayfs", DriverStatus=[["driver-type", "io.containerd.snapshotter.v1"]])
    (finding,) = image_store.examine(machine.look(None))
    assert finding.severity == "note" and "containerd" in finding.message
    classic = image_store.judge(INFO)
    assert classic.severity == "ok" and "overlay2" in classic.message
    slow = image_store.judge(INFO | {"Driver": "vfs"})
    assert slow.severity == "warning" and "vfs" in slow.message


@pytest.mark.parametrize(
    ("processor", "engines", "severity", "words"),
    [
        ("x86_64", "amd64", "ok", "start there"),
        ("x86_64", "", "ok", "amd64"),
        ("aarch64", "arm64", "note", "does not start on amd64"),
        ("arm64", "arm64", "note", "DGX Spark"),
        ("arm64", "amd64", "warning", "emulated"),
        ("riscv64", "riscv64", "error", "amd64 and arm64"),
    ],
)
def test_what_the_processor_means_for_the_targets(processor: str, engines: str, severity: str, words: str) -> None:
    (finding,) = architecture.judge(processor, engines)
    assert finding.severity == severity and words in finding.message
    assert bool(finding.remedy) == (severity != "ok")


def test_base_images_are_here_or_it_is_said_where_they_come_from() -> None:
    pinned = ["python:3.13-slim-trixie", "python:3.13-trixie"]
    built = ["course-base/trixie:1", "course-base/python-slim:trixie-1", "course-base/python-full:trixie-1"]
    assert base_images.origin(built, pinned) == "built from packages"
    assert base_images.origin(["other:1", *pinned], pinned) == "from a registry"
    assert base_images.origin([*built[:2], pinned[0]], pinned) == ""
    assert base_images.judge("built from packages", "auto", True).severity == "ok"
    missing = base_images.judge("", "auto", True)
    assert missing.severity == "note" and "registry" in missing.message and "packages" in missing.message
    assert "packages" not in base_images.judge("", "auto", debian=False).message
    assert base_images.judge("", "debian", debian=False).severity == "error"


def test_kind_and_kubectl_need_not_be_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not kubernetes.CHECK.concerns("4.4.1") and kubernetes.CHECK.concerns("4.4.5")
    missing = kubernetes.examine(a_machine(lab="4.4.5"))[0]
    assert missing.severity == "note" and "kind and kubectl are not installed" in missing.message
    for program in ("kubectl", "kind"):
        (tmp_path / program).write_text("#!/bin/sh\n")
        (tmp_path / program).chmod(0o755)
        found = kubernetes.examine(a_machine(engine=READY, lab="4.4.5"))[0]
        assert found.severity == ("ok" if program == "kind" else "note")


@pytest.mark.parametrize(("instances", "watches", "short"), [(128, 65_536, ""), (64, 65_536, "instances is 64"), (512, 8192, "watches is 8192")])  # fmt: skip
def test_a_machine_that_may_watch_too_few_files(tmp_path: Path, instances: int, watches: int, short: str) -> None:
    (tmp_path / "max_user_instances").write_text(f"{instances}\n")
    (tmp_path / "max_user_watches").write_text(f"{watches}\n")
    found = kubernetes._watches(tmp_path)
    assert [one.severity for one in found] == (["warning"] if short else [])
    assert all(short in one.message and "sysctl" in one.remedy for one in found)
    assert kubernetes._watches(tmp_path / "not Linux") == []
