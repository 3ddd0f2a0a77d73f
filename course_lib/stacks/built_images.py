"""The images that a stack builds itself: named by what goes into them, built when no engine has that name yet."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from course_lib import ledger, shell
from course_lib.lab import display
from course_lib.settings import CHECKOUT
from course_lib.stacks.project import Project

STACK = CHECKOUT / "docker" / "stack"
#: Variable of the Compose files: (name, folder or files that the build reads).
_OURS = {
    "RAG_IMAGE": ("rag-service", (CHECKOUT / "docker" / "rag-service",)),
    "TRACES_IMAGE": ("trace-receiver", (CHECKOUT / "docker" / "trace-receiver",)),
}
_RECIPE = (STACK / "debian.Dockerfile", STACK / "install-packages")
_FROM_PACKAGES = {
    "NGINX_IMAGE": ("nginx", _RECIPE),
    "CHROMA_IMAGE": ("chroma", (*_RECIPE, STACK / "chroma")),
    "PROMETHEUS_IMAGE": ("prometheus", _RECIPE),
    "ALERTMANAGER_IMAGE": ("alertmanager", _RECIPE),
    "BLACKBOX_IMAGE": ("blackbox", _RECIPE),
    "CACHE_IMAGE": ("redis", _RECIPE),
}
#: Lies in a build context and goes into no image.
_LEFT_OUT = {"tests", "evaluation", "__pycache__", ".pytest_cache", ".mypy_cache", ".ruff_cache", ".hypothesis"}


def names(given: Mapping[str, str], *, from_packages: bool) -> dict[str, str]:
    """For each variable the name of the image that is built for it; by its content, so that all checkouts share it.

    Args:
        given: BASE_IMAGE and BUILDER_IMAGE, on which all of them stand.
        from_packages: also the services that a registry would have given.
    """
    wanted = _OURS | (_FROM_PACKAGES if from_packages else {})
    bases = f"{given.get('BASE_IMAGE', '')} {given.get('BUILDER_IMAGE', '')}"
    return {variable: f"course-stack/{name}:{_digest(paths, bases)}" for variable, (name, paths) in wanted.items()}


def _digest(paths: tuple[Path, ...], bases: str) -> str:
    """Twelve hexadecimal digits of the files and of the images below."""
    found = hashlib.sha256(bases.encode())
    for path in paths:
        files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
        for file in files:
            if not _LEFT_OUT & set(file.relative_to(path.parent).parts):
                found.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    return found.hexdigest()[:12]


def ensure(project: Project, *also: str, only: str = "", show: bool = True) -> list[str]:
    """Builds the services that have to be built; returns them.

    The course's own images are *kept*, and named by their content: one that is here is the right one. What a learner's
    file builds is built each time (from the cache, mostly), and goes with the session.

    Args:
        also: services of profiles that are off.
        only: this service and no other.

    Raises:
        CourseError: a build failed.
    """
    kept = set(project.variables.values())
    missing: dict[str, str] = {}
    config = project.config(all_profiles=bool(also))
    for service, what in config["services"].items():
        if (also and service not in (*project.services, *also)) or (only and service != only):
            continue
        image = what.get("image", f"{project.name}-{service}")
        if "build" in what and not (image in kept and _present(image)):
            missing[service] = image
    if not missing:
        return []
    for image in set(missing.values()):
        ledger.write_down("image", image, "kept" if image in kept else "run")
    live = display.Live()
    lines: list[str] = []

    def draw(line: str) -> None:
        lines.append(line)
        live.draw_text("\n".join(lines[-8:]))

    # The services that share an image build it once.
    once = {image: service for service, image in missing.items()}
    project.run("--progress=plain", "build", *once.values(), show=show, timeout=1800, on_line=draw)
    for image in set(missing.values()) & kept:
        _retire_older(image)
    return list(missing)


def _present(image: str) -> bool:
    return shell.succeeds(["docker", "image", "inspect", "--format=1", image])


def _retire_older(image: str) -> None:
    """Takes this checkout's earlier builds of an image away; one that a container uses, or another checkout built, stays."""
    name = image.rpartition(":")[0]
    built = [row for row in ledger.rows(lifetime="kept") if row.name.startswith(f"{name}:") and row.name != image]
    others = {row.name for row in built if row.checkout != str(CHECKOUT)}
    for old in {row.name for row in built} - others:
        if shell.succeeds(["docker", "image", "rm", old]) or not _present(old):
            ledger.strike("image", old)
