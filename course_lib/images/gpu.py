"""GPUs in containers: what was asked for, read back, and what the engine made of it."""

from __future__ import annotations

import json
from dataclasses import dataclass

from course_lib import ledger, reaper, shell
from course_lib.errors import CourseError
from course_lib.images.engine_client import client
from course_lib.lab.steps import record
from course_lib.settings import settings


@dataclass(frozen=True)
class GpuOutcome:
    """How `docker run --gpus all` went on this machine."""

    used: bool
    said: str
    """nvidia-smi's line from inside the container, or the engine's own refusal."""

    @property
    def options(self) -> tuple[str, ...]:
        """The options of `docker run` for the device that this machine has."""
        return ("--gpus=all",) if self.used else ()


def request_gpus(image: str) -> GpuOutcome:
    """Creates a container with `--gpus all`, reads its device request back, and starts it.

    With a GPU, `nvidia-smi` runs inside. Without one, the engine's refusal is the reading: a container that was asked
    to have a GPU must not start without it.

    Raises:
        CourseError: the request did not arrive, or the engine failed for another reason than a missing GPU.
    """
    name = settings().object_name("gpu-request")
    reaper.dispose("container", name)
    ledger.write_down("container", name)
    try:
        command = ["docker", "create", "--gpus=all", f"--name={name}", "--entrypoint=nvidia-smi"]
        query = ["--query-gpu=name,driver_version,compute_cap", "--format=csv,noheader"]
        shell.announce(shell.readable([*command, image, *query]))
        shell.run([*command, *ledger.label_arguments(), image, *query], show=False)
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
    try:
        return GpuOutcome(True, shell.run(["docker", "start", "--attach", name], timeout=60).output)
    except shell.CommandError as error:
        state = client().api.inspect_container(name)["State"]
        words = state["Error"] or error.stderr.strip()
        if not state["StartedAt"].startswith("0001-") or "executable file not found" in words:
            raise CourseError(
                "the engine failed to run nvidia-smi in a container with a GPU",
                why=words,
                do="Run `make doctor`, which looks at the driver, the toolkit and the image.",
            ) from None
        return GpuOutcome(False, words.splitlines()[-1])
