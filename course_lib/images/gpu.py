"""GPUs in containers: what was asked for, read back, and what the engine made of it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from course_lib import ledger, reaper, shell
from course_lib.errors import CourseError
from course_lib.images.engine_client import client
from course_lib.lab.steps import record
from course_lib.settings import settings

#: Computes on the GPU through the driver's library alone, so any image with a Python can run it from standard input.
PROBE = Path(__file__).with_name("cuda_probe.py")


@dataclass(frozen=True)
class GpuOutcome:
    """How `docker run --gpus all` went on this machine."""

    used: bool
    said: str
    """The GPU's name, as CUDA gave it inside the container after computing there; or the engine's own refusal."""

    @property
    def options(self) -> tuple[str, ...]:
        """The options of `docker run` for the device that this machine has."""
        return ("--gpus=all",) if self.used else ()


def request_gpus(image: str) -> GpuOutcome:
    """Creates a container with `--gpus all`, reads its device request back, and starts it.

    With a GPU, a small program uses CUDA inside: it fills memory on the device and reads it back. Without one, the
    engine's refusal is the reading: a container that was asked to have a GPU must not start without it.

    Raises:
        CourseError: the request did not arrive, or the engine failed for another reason than a missing GPU.
    """
    name = settings().object_name("gpu-request")
    reaper.dispose("container", name)
    ledger.write_down("container", name)
    try:
        command = ["docker", "create", "--interactive", "--gpus=all", f"--name={name}", "--entrypoint=python3"]
        shell.announce(shell.readable([*command, image, "-"]))
        shell.run([*command, *ledger.label_arguments(), image, "-"], show=False)
        requests = client().api.inspect_container(name)["HostConfig"]["DeviceRequests"] or []
        if not any("gpu" in capability for r in requests for group in r["Capabilities"] for capability in group):
            raise CourseError("the container was created without a GPU request", why=json.dumps(requests))
        record(
            "container.device-request",
            "docker",
            name,
            count=requests[0]["Count"],
            capabilities=requests[0]["Capabilities"],
        )
        outcome = _start(name)
    finally:
        reaper.dispose("container", name)
    record("container.gpu-outcome", "docker", name, used=outcome.used, said=outcome.said)
    return outcome


def _start(name: str) -> GpuOutcome:
    """Starts the container. What never started was refused, in the engine's words; what started and failed is an error."""
    command = ["docker", "start", "--attach", "--interactive", name]
    shell.announce(shell.readable(command) + f" < {PROBE.name}")
    try:
        return GpuOutcome(True, shell.run(command, show=False, input=PROBE.read_text(), timeout=60).output)
    except shell.CommandError as error:
        state = client().api.inspect_container(name)["State"]
        words = state["Error"] or error.stderr.strip()
        if not state["StartedAt"].startswith("0001-") or "executable file not found" in words:
            raise CourseError(
                "the container got a GPU and could not compute with CUDA on it",
                why=words,
                do="Run `make doctor`, which looks at the driver, the toolkit and the image.",
            ) from None
        return GpuOutcome(False, words.splitlines()[-1])
