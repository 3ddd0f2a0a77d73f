"""GPUs in containers: what was asked for, read back, and what the engine made of it."""

from __future__ import annotations

import json
from dataclasses import dataclass

from course_lib import ledger, shell
from course_lib.errors import CourseError
from course_lib.images.engine_client import client
from course_lib.lab import record
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
    shell.run(["docker", "rm", "--force", name], show=False, check=False)
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
        shell.run(["docker", "rm", "--force", name], show=False, check=False)
        ledger.strike("container", name)
    record("container.gpu-outcome", "docker", name, used=outcome.used, said=outcome.said)
    return outcome


def _start(name: str) -> GpuOutcome:
    try:
        started = shell.run(["docker", "start", "--attach", name], timeout=60)
    except shell.CommandError as error:
        refusal = next(
            (
                line
                for line in error.stderr.splitlines()
                if "could not select device driver" in line or "CDI device" in line
            ),
            None,
        )
        if refusal is None:
            raise CourseError(
                "the engine failed to start a container with a GPU",
                why=error.stderr.strip(),
                do="Run `make doctor ARGS='--lab 4.4.1'`.",
            ) from None
        return GpuOutcome(False, refusal.strip())
    return GpuOutcome(True, started.output)
