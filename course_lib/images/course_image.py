"""The image that all seven labs deploy: built when it is first asked for, found again by its content."""

from __future__ import annotations

import hashlib
import tomllib

from course_lib import ledger, shell
from course_lib.errors import CourseError
from course_lib.images import bases, buildkit, platforms
from course_lib.images.engine_client import client
from course_lib.ledger import LABEL, Lifetime
from course_lib.settings import CHECKOUT, settings

SERVER = CHECKOUT / "docker" / "inference-server"
LOCK = SERVER / "requirements.txt"

#: What the Dockerfile copies: another of these files makes another image.
_CONTENT = (
    "Dockerfile",
    "requirements.txt",
    "pyproject.toml",
    "keep_base_packages.py",
    "warm_imports.py",
    "models",
    "inference_server",
)


def version() -> str:
    """The server's version, from its pyproject.toml."""
    return str(tomllib.loads((SERVER / "pyproject.toml").read_text())["project"]["version"])


def revision() -> str:
    """The checkout's git revision, short; `-dirty` when files differ from it; `unknown` outside a clone."""
    try:
        return shell.run(
            ["git", "-C", str(CHECKOUT), "describe", "--always", "--dirty", "--abbrev=9"], show=False
        ).output
    except CourseError:
        return "unknown"


def content_hash() -> str:
    """Twelve hexadecimal digits of everything that goes into the image."""
    digest = hashlib.sha256()
    for name in _CONTENT:
        path = SERVER / name
        for file in sorted(
            [path] if path.is_file() else (p for p in path.rglob("*") if p.is_file() and "__pycache__" not in p.parts)
        ):
            digest.update(str(file.relative_to(SERVER)).encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def build_arguments(found: bases.Bases) -> dict[str, str]:
    """The build arguments for the Dockerfile on this machine's bases."""
    on_ngc = found.runtime == found.builder
    return {
        "BASE_IMAGE": found.runtime,
        "BUILDER_IMAGE": found.builder,
        "SYSTEM_SITE_PACKAGES": "true" if on_ngc else "false",
        "VERSION": version(),
        "REVISION": revision(),
    }


def name() -> str:
    """The image's name: a second checkout has another, so that neither moves the other's tags."""
    return f"course-{settings().checkout_id}/inference-server"


def tag() -> str:
    """Version and revision: nobody has to ask which build `latest` was."""
    return f"{name()}:{version()}-{revision()}"


def build_inference_image(
    *, target: str | None = None, tag_as: str | None = None, lifetime: Lifetime = "kept"
) -> buildkit.Built:
    """Builds the server's image, or one of its stages, with BuildKit (a second build of the same tree takes under a second)."""
    found = bases.ensure_for_profile()
    built = buildkit.build(
        SERVER,
        tag=tag_as or tag(),
        target=target,
        args=build_arguments(found),
        labels=_marks(found) if target is None else {},
        lifetime=lifetime,
    )
    if target is None:
        _retire_all_but(built.reference)
    return built


def build_for(wanted: str) -> buildkit.Built:
    """Builds the server's image for another machine than this one, as an arm64 DGX Spark has to for most cloud machines.

    Args:
        wanted: a platform (linux/amd64) or one of the machines in `platforms.TARGET_PLATFORMS`.

    Raises:
        CourseError: the base images here are for this platform alone, or the builder can't run that platform's programs.
    """
    platform = platforms.TARGET_PLATFORMS.get(wanted, wanted)
    if platform == platforms.of_engine():
        return build_inference_image()
    found = bases.ensure_for_profile()
    if found.source == "debian":
        raise CourseError(
            f"the base images here were built from this machine's packages, so they are not for {platform}",
            do="Build where a registry answers (IMAGES=registry), whose images have both platforms, or on a machine of that platform.",
        )
    return buildkit.build(
        SERVER,
        tag=f"{tag()}-{platform.rpartition('/')[2]}",
        args=build_arguments(found),
        platform=platform,
    )


def _retire_all_but(reference: str) -> None:
    """Takes this checkout's earlier builds away: one is kept, not one a revision. A build that a container uses stays."""
    mine = f"{LABEL}.image.checkout={settings().checkout_id}"
    for image in client().images.list(
        name=name(), filters={"label": [mine, f"{LABEL}.image.profile={settings().profile}"]}
    ):
        for old in image.tags:
            if old.startswith(f"{name()}:") and old != reference and shell.succeeds(["docker", "image", "rm", old]):
                ledger.strike("image", old)


def build_builder_stage() -> buildkit.Built:
    """Builds the first stage by itself, to look at what stays behind."""
    return build_inference_image(target="builder", tag_as=f"{name()}-builder:{version()}-{revision()}", lifetime="run")


def _marks(found: bases.Bases) -> dict[str, str]:
    """The labels by which a finished image is found again: what went in, and what it stands on."""
    base = buildkit.image_id(found.runtime)[-12:]
    return {f"{LABEL}.image.content": f"{content_hash()}-{base}", f"{LABEL}.image.profile": settings().profile}


def build_naive_image() -> buildkit.Built:
    """Builds the "before": one stage, everything copied, compilers and all."""
    found = bases.ensure_for_profile()
    return buildkit.build(
        SERVER,
        file=SERVER / "naive.Dockerfile",
        tag=f"{name()}-naive:{version()}-{revision()}",
        args={"BUILDER_IMAGE": found.builder},
    )


def ensure_inference_image() -> str:
    """The reference of the inference image, built if this content has not been built yet. Any lab's first cell may ask."""
    marks = [f"{key}={value}" for key, value in _marks(bases.ensure_for_profile()).items()]
    for image in client().images.list(filters={"label": marks}):
        for reference in image.tags:
            if reference.startswith(name() + ":"):
                return str(reference)
    return build_inference_image().reference
