"""Clients that nobody here wrote drive the course's image: their code starts the container, asks it and stops it."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
from docker.models.containers import Container

from course_lib import shell
from course_lib.host import engine, environments
from course_lib.images import course_image, server
from course_lib.images.course_image import SERVER
from course_lib.images.engine_client import client
from course_lib.ledger import LABEL

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # before it is loaded
import onnxruntime

HERE = Path(__file__).parent
Drive = Callable[..., dict[str, Any]]


@dataclass(frozen=True)
class Artefact:
    """Models that are in no image: the course's own under names made up for this run, the classifier's labels shuffled."""

    folder: Path
    mark: str

    @property
    def digits(self) -> str:
        return f"digits-{self.mark}"

    @property
    def tutor(self) -> str:
        return f"tutor-{self.mark}"

    @cached_property
    def labels(self) -> list[str]:
        return list(json.loads((self.folder / self.digits / "41" / "model.json").read_text())["labels"])

    @cached_property
    def _session(self) -> onnxruntime.InferenceSession:
        return onnxruntime.InferenceSession(self.folder / self.digits / "41" / "model.onnx")

    def probabilities(self, pixels: tuple[float, ...]) -> dict[str, float]:
        """What this model says of a digit, computed here."""
        (name,) = (each.name for each in self._session.get_inputs())
        (row,) = self._session.run(["probabilities"], {name: [pixels]})[0]
        return dict(zip(self.labels, map(float, row), strict=True))


@pytest.fixture(scope="session")
def artefact(tmp_path_factory: pytest.TempPathFactory) -> Artefact:
    """A folder of models, readable to the server's own user as an artefact has to be."""
    made = Artefact(tmp_path_factory.mktemp("artefact"), os.urandom(4).hex())
    made.folder.chmod(0o755)
    digits = shutil.copytree(SERVER / "models" / "digits" / "2", made.folder / made.digits / "41")
    card = json.loads((digits / "model.json").read_text())
    del card["name"], card["version"]  # its folders say them
    random.shuffle(card["labels"])
    (digits / "model.json").write_text(json.dumps(card))
    without_torch = shutil.ignore_patterns("*.safetensors")
    shutil.copytree(SERVER / "models" / "tutor" / "2", made.folder / made.tutor / "42", ignore=without_torch)
    return made


@pytest.fixture(scope="session")
def digits() -> list[server.Sample]:
    """Some of the held-out digits, others each time."""
    return random.sample(server.samples(100), 12)


@pytest.fixture(scope="module")
def image() -> Iterator[str]:
    """The course's image under a name of this module's own: containers are known by it, and are gone when the module ends."""
    name = f"course-test/vendors:{os.urandom(4).hex()}"
    shell.run(["docker", "tag", course_image.ensure_inference_image(), name])
    before = networks()
    yield name
    for container in containers(name):
        container.remove(force=True, v=True)
    for network in networks() - before:
        client().networks.get(network).remove()
    shell.run(["docker", "image", "rm", name])
    assert containers(name) == []


def networks() -> set[str]:
    """The id of the network that SageMaker's client makes and leaves, if it is there and nobody is in it."""
    found = client().networks.list(names=["sagemaker-local"], greedy=True)
    return {str(each.id) for each in found if not each.attrs["Containers"]}


def containers(image: str) -> list[Container]:
    """Those that were started from the image by this name, running or not."""
    return [
        each
        for each in client().containers.list(all=True, ignore_removed=True)
        if each.attrs["Config"]["Image"] == image
    ]


def is_ours(container: Container) -> bool:
    """Whether it runs what this tree builds."""
    return str(container.labels[f"{LABEL}.image.content"]).startswith(course_image.content_hash())


def log(container: Container) -> list[dict[str, Any]]:
    """The lines that the server wrote."""
    return [json.loads(line) for line in container.logs().decode().splitlines()]


@pytest.fixture(scope="session")
def drive(tmp_path_factory: pytest.TempPathFactory) -> Drive:
    """Runs a driver in the vendors' environment, without a person's credentials or settings, and returns what it saw."""
    python = environments.ensure(
        "vendors", HERE / "requirements.txt", do="Let this machine reach a package index, once: it is kept in .cache."
    )
    home = tmp_path_factory.mktemp("home")
    (home / "sagemaker.yaml").write_text(
        "SchemaVersion: '1.0'\nSageMaker: {PythonSDK: {Modules: {TelemetryOptOut: true}}}\n"
    )
    nobody = {
        "HOME": str(home),
        "AWS_DEFAULT_REGION": "eu-central-1",
        "AWS_ACCESS_KEY_ID": "nobodys",
        "AWS_SECRET_ACCESS_KEY": "nobodys",
        "AWS_EC2_METADATA_DISABLED": "true",
        "SAGEMAKER_ADMIN_CONFIG_OVERRIDE": str(home / "sagemaker.yaml"),
        "SAGEMAKER_USER_CONFIG_OVERRIDE": str(home / "sagemaker.yaml"),
        "DOCKER_CONFIG": os.environ.get("DOCKER_CONFIG", str(Path.home() / ".docker")),
        "DOCKER_HOST": engine.client_endpoint(),
    }
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ}

    def run(script: str, job: dict[str, Any]) -> dict[str, Any]:
        folder = tmp_path_factory.mktemp("job")
        (folder / "job.json").write_text(json.dumps(job))
        command = [python / "bin" / "python", HERE / "drivers" / script, folder / "job.json", folder / "result.json"]
        done = subprocess.run(command, env=kept | nobody, cwd=folder, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
        return dict(json.loads((folder / "result.json").read_text()))

    return run
