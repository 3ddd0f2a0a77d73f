"""The course's own stack: docker/stack/compose.yaml with this machine's images, free ports and secrets made on the spot."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from course_lib import shell
from course_lib.settings import CHECKOUT, as_typed, settings
from course_lib.stacks import built_images, explanations, secret_files
from course_lib.stacks.built_images import STACK
from course_lib.stacks.project import Project
from course_lib.stacks.stack import Stack

#: Published on a free port each; by hand, compose.yaml has a fixed one.
_PORTS = ("HTTPS_PORT", "PROMETHEUS_PORT", "ALERTMANAGER_PORT", "TRACES_PORT", "CHROMA_PORT")


def env_values(*, production: bool = False) -> dict[str, str]:
    """The variables of docker/stack/.env, and in production those of .env.production over them, as Compose reads the two."""
    files = [STACK / ".env", *([STACK / ".env.production"] if production else [])]
    lines = [line for file in files for line in file.read_text().splitlines() if line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


def built_variables(images: Mapping[str, str]) -> dict[str, str]:
    """The variables of all images that a Compose file may use, each one built or pulled if it is not here yet.

    Args:
        images: as for `course_stack`.
    """
    stack = course_stack(images, short="images")
    stack.project.prepare()
    try:
        also = () if "NGINX_IMAGE" in images else ("cache-image",)
        built_images.ensure(stack.project, *also)
        if not also:
            stack.project.run("pull", "--ignore-buildable", "--policy=missing", "--quiet", show=False, timeout=1800)
    finally:
        stack.project.dispose()
    return {name: value for name, value in stack.project.variables.items() if name.endswith("_IMAGE")}


def door_image(images: Mapping[str, str]) -> str:
    """The nginx of the stack's front door, built or pulled if it is not here yet.

    Args:
        images: as for `course_stack`.
    """
    stack = course_stack(images, short="door")
    stack.project.prepare()
    try:
        built_images.ensure(stack.project, only="proxy")
        if "NGINX_IMAGE" in images:
            stack.project.run("pull", "--policy=missing", "--quiet", "proxy", show=False, timeout=600)
    finally:
        stack.project.dispose()
    return stack.project.variables["NGINX_IMAGE"]


def course_stack(
    images: Mapping[str, str],
    *,
    short: str = "rag",
    profiles: Sequence[str] = ("development",),
    overrides: Sequence[Path] = (),
    variables: Mapping[str, str] | None = None,
) -> Stack:
    """The stack of docker/stack/compose.yaml, with free ports and secrets of its own.

    Args:
        images: variables of the Compose file for images: INFERENCE_IMAGE, BASE_IMAGE, BUILDER_IMAGE, and those of a
            registry with their digests. Without NGINX_IMAGE among them, the services are built from packages.
        short: its name; two of different names live side by side.
        profiles: `development`, `production` or both.
        overrides: further Compose files, laid over it.
        variables: further variables, such as INFERENCE_REPLICAS.
    """
    from_packages = "NGINX_IMAGE" not in images
    files = [STACK / "compose.yaml", *([STACK / "compose.debian.yaml"] if from_packages else []), *overrides]
    project = Project(short, tuple(files))
    bundle = settings().ca_bundle
    values = {
        **images,
        **built_images.names(images, from_packages=from_packages),
        **dict.fromkeys(_PORTS, ""),
        "SECRETS_FOLDER": str(project.folder / "secrets"),
        "CA_BUNDLE": str(bundle) if bundle else "/dev/null",
        **(variables or {}),
    }
    return Stack(replace(project, variables=values, profiles=tuple(profiles)))


def by_hand(stack: Stack) -> Path:
    """Images, secrets and an env file for a person who types `docker compose` alone; returns the env file.

    Whatever is started with it is that person's: no cleanup touches it.
    """
    ports = {
        "HTTPS_PORT": "8443",
        "PROMETHEUS_PORT": "9090",
        "ALERTMANAGER_PORT": "9093",
        "TRACES_PORT": "4318",
        "CHROMA_PORT": "8001",
    }
    project = replace(stack.project, variables={**stack.project.variables, **ports})
    project.prepare(owned=False)
    secret_files.make(Path(project.variables["SECRETS_FOLDER"]))
    built_images.ensure(project)
    return project.env_file


def merged(
    files: Sequence[Path], variables: Mapping[str, str], *, env_files: Sequence[Path | str] = ()
) -> dict[str, Any]:
    """What Compose makes of files and variables, without starting anything.

    Args:
        variables: of the shell, so they win over those of env files.

    Raises:
        CourseError: they can't be merged.
    """
    command = ["docker", "compose", *(f"--env-file={as_typed(file)}" for file in env_files)]
    command += [*(f"--file={as_typed(file)}" for file in files), "config", "--format=json"]
    try:
        return dict(json.loads(shell.run(command, env=variables, cwd=CHECKOUT).stdout))
    except shell.CommandError as error:
        raise explanations.of_command(error, "") from None
