"""GPU allocation in Compose: what the override asks for, what arrives at the engine, and what the engine makes of it."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

from course_lib import shell
from course_lib.errors import CourseError
from course_lib.lab.steps import record
from course_lib.stacks.built_images import STACK
from course_lib.stacks.project import Project
from course_lib.stacks.stack import Stack

OVERRIDE = STACK / "compose.gpu.yaml"


@dataclass(frozen=True)
class GpuOutcome:
    """How a service that asks for a GPU went on this machine."""

    used: bool
    said: str
    """What `nvidia-smi` listed inside the container, or the engine's own refusal."""


def request(stack: Stack, service: str = "inference") -> GpuOutcome:
    """Lays compose.gpu.yaml over the stack, reads the merged configuration back, creates that one service's container,
    reads its device request back from the engine, and starts it. The running stack is not touched.

    Raises:
        CourseError: the request got lost on the way, or the engine failed for another reason than a missing GPU.
    """
    project = replace(stack.project, short=f"{stack.project.short}-gpu", files=(*stack.project.files, OVERRIDE))
    project.prepare()
    try:
        _require_configured(project, service)
        name = f"{project.name}-{service}-1"
        project.run("up", "--no-start", "--no-build", "--no-deps", service)
        requests = json.loads(
            shell.run(["docker", "inspect", "--format={{json .HostConfig.DeviceRequests}}", name]).stdout
        )
        if not any("gpu" in group for one in requests or [] for group in one["Capabilities"]):
            raise CourseError("the container was created without a GPU request", why=json.dumps(requests))
        record(
            "stack.device-request", "docker", name, count=requests[0]["Count"], capabilities=requests[0]["Capabilities"]
        )
        outcome = _start(name)
    finally:
        project.dispose()
    record("stack.gpu-outcome", "docker", name, used=outcome.used, said=outcome.said)
    return outcome


def _require_configured(project: Project, service: str) -> None:
    """The merged configuration reserves a device for the service, and kept what the other files say of it."""
    merged = project.config()["services"][service]
    devices = merged["deploy"]["resources"].get("reservations", {}).get("devices", [])
    if not any("gpu" in device.get("capabilities", []) for device in devices):
        raise CourseError(
            f"the merged configuration reserves no GPU for {service}", why=json.dumps(merged["deploy"]),
            do="Is compose.gpu.yaml the last of the files?",
        )  # fmt: skip
    check = merged.get("healthcheck") or {"disable": True}
    if check.get("disable") or not merged.get("secrets"):
        raise CourseError(f"{service} lost its health check or its secrets in the merge")
    record("stack.gpu-configured", "docker compose config", project.name, service=service, devices=devices)


def _start(name: str) -> GpuOutcome:
    """Starts the container. Without a GPU the engine has to refuse: one that starts all the same would be slow unnoticed."""
    try:
        shell.run(["docker", "start", name], timeout=60)
    except shell.CommandError as error:
        words = error.stderr.strip().splitlines()
        if not any(sign in error.stderr for sign in ("could not select device driver", "CDI device", "nvidia")):
            raise CourseError("the container could not be started", why=error.stderr) from None
        return GpuOutcome(False, words[0])
    listed = shell.run(["docker", "exec", name, "nvidia-smi", "-L"], check=False, timeout=60)
    if not listed.stdout.startswith("GPU "):
        raise CourseError(
            "the container started with a GPU request, and sees no GPU", why=listed.stdout + listed.stderr,
            do="Run `make doctor`, which looks at the driver and the toolkit.",
        )  # fmt: skip
    return GpuOutcome(True, listed.output)
