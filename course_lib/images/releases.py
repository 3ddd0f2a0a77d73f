"""Releases: the course's image with one version of a model, which is what a rollout rolls out."""

from __future__ import annotations

from typing import Literal

from course_lib.errors import CourseError
from course_lib.images import buildkit, course_image
from course_lib.images.course_image import SERVER
from course_lib.settings import CHECKOUT

_FILE = CHECKOUT / "docker" / "release" / "Dockerfile"


def build_release(model: str, version: str, *, models: Literal["models", "models-bad"] = "models") -> str:
    """Builds the image of one version of a model on the course's image; returns its name. A layer is all that is new.

    Args:
        model: the name of its folder.
        models: where it is; `models-bad` holds those that are wrong on purpose.

    Raises:
        CourseError: there is no such version, or the build failed.
    """
    if not (SERVER / models / model / version).is_dir():
        known = sorted(one.name for one in (SERVER / models / model).glob("*") if one.is_dir())
        raise CourseError(f"there is no version {version} of {model} in {models}", do=f"There are: {', '.join(known)}.")
    arguments = {
        "INFERENCE_IMAGE": course_image.ensure_inference_image(), "MODELS": models, "MODEL": model, "VERSION": version,
    }  # fmt: skip
    tag = f"{course_image.name()}-release:{model}-{version}"
    return buildkit.build(SERVER, file=_FILE, tag=tag, args=arguments).reference
