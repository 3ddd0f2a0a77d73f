"""Platforms: an image built on a DGX Spark is arm64, most cloud machines are amd64, and the difference shows only at the start."""

from __future__ import annotations

from course_lib.errors import CourseError
from course_lib.images import inspection
from course_lib.images.engine_client import client

#: What the machines are that the labs deploy to.
TARGET_PLATFORMS = {
    "ml.g5.xlarge": "linux/amd64",
    "ml.m5.large": "linux/amd64",
    "ml.m7g.large": "linux/arm64",
    "n1-standard-4": "linux/amd64",
    "dgx-spark": "linux/arm64",
}


def of_engine() -> str:
    """The platform that this engine builds for by itself, such as linux/arm64."""
    said = client().version()
    return f"{said['Os']}/{said['Arch']}"


def require(reference: str, wanted: str) -> None:
    """Refuses an image that would not start where it is about to go.

    Args:
        wanted: a platform (linux/amd64) or one of the machines in `TARGET_PLATFORMS`.

    Raises:
        CourseError: the image is of another platform; gives the build command that mends it.
    """
    platform = TARGET_PLATFORMS.get(wanted, wanted)
    have = inspection.platform(reference)
    if have != platform:
        where = f"{wanted} ({platform})" if wanted != platform else platform
        raise CourseError(
            f"{reference} is built for {have} and would not start on {where}",
            do=f"Build it for that platform, on such a machine or with `docker buildx build --platform={platform} …` where a builder can (`docker buildx ls` lists what yours can), and push that one.",
        )


def where_it_starts(reference: str) -> list[dict[str, object]]:
    """For each machine the labs deploy to: would this image start there?"""
    have = inspection.platform(reference)
    return [
        {"machine": machine, "is": wanted, "this image starts": "yes" if wanted == have else f"no, it is {have}"}
        for machine, wanted in TARGET_PLATFORMS.items()
    ]
