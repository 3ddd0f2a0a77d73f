"""What this machine's processor means for the images that are built here."""

from __future__ import annotations

import platform

from course_lib.doctor.check import Check
from course_lib.doctor.finding import Finding, error, note, ok, warning
from course_lib.doctor.machine import Machine

_NAMES = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}


def judge(machine_name: str, engine_architecture: str) -> list[Finding]:
    """Pure: the processor's name as the kernel gives it, and the engine's (empty where none answers)."""
    mine = _NAMES.get(machine_name.lower())
    if mine is None:
        return [
            error(f"{machine_name}: the course runs on amd64 and arm64", "Use a machine with one of these processors.")
        ]
    if engine_architecture and engine_architecture != mine:
        return [
            warning(
                f"this machine is {mine}, its engine {engine_architecture}: every container is emulated, and slow",
                f"Use an engine built for {mine} (Docker Desktop for this processor, or no DOCKER_HOST).",
            )
        ]
    if mine == "amd64":
        return [ok("amd64, as most cloud machines are (ml.g5, ml.m5, n1): images built here start there")]
    return [
        note(
            "arm64 (a DGX Spark, an Apple or Graviton processor): everything runs here, but an image built here does not start on amd64 cloud machines (ml.g5, n1)",
            "For those targets cross-build, as lab 4.4.1 shows; the course refuses to push an image to a target that can't start it.",
        )
    ]


def examine(machine: Machine) -> list[Finding]:
    return judge(platform.machine(), machine.engine.architecture)


CHECK = Check("architecture", examine)
