"""The proof of all the GPU's parts: a container that is given the GPU uses CUDA."""

from __future__ import annotations

import re

from course_lib import ledger, shell
from course_lib.doctor.check import Check
from course_lib.doctor.finding import Finding, error, note, ok, warning
from course_lib.doctor.machine import Machine
from course_lib.settings import settings

#: What the docker client adds below the engine's words.
_ADVICE = re.compile(r"(Run|See) 'docker")
_REMEDY = "Run `sudo nvidia-ctk runtime configure --runtime=docker` and restart Docker; with CDI, run `sudo nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml`."


def some_image() -> str:
    """An image of the course with a Python in it that is here already; empty where there is none yet."""
    asked = ["docker", "image", "ls", "--filter=reference=course-base/python-slim", "--format={{.Repository}}:{{.Tag}}"]
    return next(iter(shell.run(asked, show=False, timeout=20).output.splitlines()), "")


def use_cuda(image: str, *options: str) -> str:
    """Runs the probe in a container with a GPU; returns the GPU's name as CUDA gave it.

    Raises:
        CommandError: the engine refused, or CUDA failed; with their words.
    """
    from course_lib.images.gpu import PROBE  # half a second that only a GPU host needs

    name = settings().object_name("doctor-cuda")
    remove = ["docker", "rm", "--force", name]
    shell.run(remove, show=False, check=False)
    ledger.write_down("container", name)
    command = ["docker", "run", "--interactive", f"--name={name}", "--network=none", "--entrypoint=python3"]
    try:
        return shell.run(
            [*command, *options, *ledger.label_arguments(), image, "-"],
            show=False,
            input=PROBE.read_text(),
            timeout=60,
        ).output
    finally:
        shell.run(remove, show=False, check=False)
        ledger.strike("container", name)


def examine(machine: Machine) -> list[Finding]:
    if not machine.gpus.found:
        return []
    image = some_image()
    if not image:
        return [
            note(
                "CUDA inside a container is tried once a base image is here",
                "Run `course setup`, and `course doctor` again.",
            )
        ]
    try:
        return [ok(f"a container computed on {use_cuda(image, '--gpus=all')}")]
    except shell.CommandError as failed:
        weight = error if machine.wants_gpu else warning
        said = next(
            (line for line in reversed(failed.why.splitlines()) if line and not _ADVICE.match(line)), "no words"
        )
        return [weight(f"a container with `--gpus all` could not use CUDA: {said}", _REMEDY)]


CHECK = Check("CUDA in a container", examine, needs_engine=True, labs=("4.4.1", "4.4.2", "4.4.5"), seconds=40)
