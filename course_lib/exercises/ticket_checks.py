"""What several exercises on the ticket router demand: honest health, nothing left of the build, no training data."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence

from course_lib.errors import CourseError
from course_lib.exercises.ticket_router import TicketRouter
from course_lib.images import bases, buildkit, inspection, layer_search
from course_lib.lab.exercise import NotYet


def stages(built: buildkit.Built) -> set[str]:
    """The stages that a build went through, from BuildKit's own list of steps (`[builder 2/5] RUN …`)."""
    found = (re.match(r"\[(?:.* )?(\S+) \d+/\d+\]", step.name) for step in built.steps)
    return {match.group(1) for match in found if match} or {"the only one"}


def training(built: buildkit.Built) -> buildkit.BuildStep:
    """The RUN instruction that trains the model.

    Raises:
        NotYet: the build has none.
    """
    for step in built.steps:
        if "] RUN" in step.name and "train.py" in step.name:
            return step
    raise NotYet(
        "no RUN instruction of the build trains the model",
        expected="`RUN python3 train.py`, so that containers start with a model",
        look="the Dockerfile",
    )


def require_honest_health(service: TicketRouter, *, within: float = 10) -> float:
    """Healthy while the model answers, unhealthy soon after it died; returns the seconds it took to notice.

    Raises:
        NotYet: the one or the other is not so. A missing HEALTHCHECK is said by a CourseError.
    """
    container = service.container
    if container.status()[1] == "none":
        raise NotYet(
            "the image has no HEALTHCHECK", expected="one that asks the model", look="the Dockerfile's HEALTHCHECK"
        )
    try:
        container.wait_healthy(timeout=30)
    except CourseError:
        raise NotYet(
            f"the model answers, and the container never got healthy; its probe said: {service.probe_words()}",
            expected="healthy while questions are answered",
            look="the probe's own words, with `docker inspect`; does its program exist in the image?",
        ) from None
    service.kill_model()
    died = time.monotonic()
    try:
        container.wait_unhealthy(timeout=within)
    except CourseError:
        raise NotYet(
            f"the container is still healthy {within:.0f} s after its model died; its probe said: {service.probe_words()}",
            expected="unhealthy after a few probes",
            look="what the probe asks, and what becomes of the answer",
        ) from None
    return time.monotonic() - died


def require_no_training_data(layers: Sequence[layer_search.OwnLayer]) -> None:
    """No layer above the base holds the training data.

    Raises:
        NotYet: one does; names it.
    """
    for layer in layers:
        for path in layer.paths:
            if path.endswith("/tickets.tsv"):
                raise NotYet(
                    f"training data is in the image: {path}, by `{layer.instruction}`",
                    expected="a model, and nothing it was trained from",
                    look="what the last stage copies",
                )


def require_no_build_tools(image: str, layers: Sequence[layer_search.OwnLayer]) -> None:
    """Nothing that only building needs, beyond what the slim base brings itself.

    Args:
        layers: those that the image adds to the slim base.

    Raises:
        NotYet: something is there; names it.
    """
    own = frozenset().union(*(layer.paths for layer in layers))
    left = {what: path for what, path in inspection.build_leftovers(image).items() if path in own}
    if left:
        raise NotYet(
            "the image holds " + ", ".join(f"{what} ({path})" for what, path in left.items()),
            expected="only what running needs",
            look="the FROM of the last stage",
        )


def require_not_on_builder(image: str) -> None:
    """The image does not stand on the builder's base: seen from its layers' digests, without unpacking a gigabyte.

    Raises:
        NotYet: it does.
    """
    of_builder, of_image = (inspection.attributes(name)["RootFS"]["Layers"] for name in (bases.ensure().builder, image))
    if of_image[: len(of_builder)] == of_builder:
        raise NotYet(
            f"the image stands on BUILDER_IMAGE and holds all of it: {inspection.size(image) / 1e6:.0f} MB, a compiler among them",
            expected="an image that stands on BASE_IMAGE",
            look="the FROM of the last stage",
        )
