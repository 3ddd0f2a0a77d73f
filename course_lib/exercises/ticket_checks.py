"""What several exercises on the ticket router demand: honest health, nothing left of the build, no training data."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence

from course_lib import waits
from course_lib.errors import CourseError
from course_lib.exercises.ticket_router import TicketRouter
from course_lib.images import bases, buildkit, inspection, layer_search
from course_lib.images.engine_client import client
from course_lib.lab.exercise import NotYet


def stages(built: buildkit.Built) -> set[str]:
    """The stages that a build went through, from BuildKit's own list of steps (`[builder 2/5] RUN …`)."""
    found = (re.match(r"\[(?:.* )?(\S+) \d+/\d+\]", step.name) for step in built.steps)
    return {match.group(1) for match in found if match} or {"the only one"}


def trainings(built: buildkit.Built) -> list[buildkit.BuildStep]:
    """The RUN instructions that train the model.

    Raises:
        NotYet: the build has none.
    """
    if found := [step for step in built.steps if "] RUN" in step.name and "train.py" in step.name]:
        return found
    raise NotYet(
        "no RUN instruction of the build trains the model",
        expected="`RUN python3 train.py`, so that containers start with a model",
        look="the Dockerfile",
    )


def require_honest_health(service: TicketRouter) -> float:
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
        container.wait_healthy(timeout=60)
    except CourseError:
        raise NotYet(
            f"the model answers, and the container never got healthy; its probe said: {service.probe_words()}",
            expected="healthy while questions are answered",
            look="the probe's own words, with `docker inspect`; does its program exist in the image?",
        ) from None
    earlier = {one["Start"] for one in container.inspect()["State"]["Health"]["Log"]}
    service.kill_model()
    died = time.monotonic()

    def noticed() -> float:
        state = container.inspect()["State"]
        if state["Status"] != "running":
            raise NotYet(
                f"the container is {state['Status']} since its model died; its log:\n{container.logs()}",
                expected="503 from POST /route, and unhealthy: the service as it is in labs/starters/4.4.1/service",
                look="the COPY of service.py, and what the probe does",
            )
        if state["Health"]["Status"] == "unhealthy":
            return time.monotonic() - died
        # Counted in probes, and not in seconds: on a busy machine they are rare. The first may have begun before.
        content = [one for one in state["Health"]["Log"] if one["ExitCode"] == 0 and one["Start"] not in earlier]
        if len(content) > 3:
            raise NotYet(
                f"the container is still healthy after 3 probes since its model died; the last said: {service.probe_words()}",
                expected="unhealthy after a few probes",
                look="what the probe asks, and what becomes of the answer",
            )
        raise waits.NotYet(f"{len(content)} probes since then have said that it is well")

    return waits.until(noticed, what="the HEALTHCHECK to notice", timeout=120, diagnose=service.probe_words)


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


def require_no_build_tools(layers: Sequence[layer_search.OwnLayer]) -> None:
    """No layer above the base holds what only building needs, be it deleted by a later one or not.

    Raises:
        NotYet: one does; names the first of each kind.
    """
    left: dict[str, str] = {}
    for layer in layers:
        for path in sorted(layer.paths):
            for what, pattern in inspection.BUILD_LEFTOVERS.items():
                if what not in left and pattern.search(path):
                    left[what] = f"{path}, by `{buildkit.shorten(layer.instruction)}`"
    if left:
        raise NotYet(
            "layers of the image hold " + "; ".join(f"{what} ({where})" for what, where in left.items()),
            expected="only what running needs, in every layer: what a later one deletes is carried along",
            look="the FROM of the last stage, and what it copies and installs",
        )


def require_no_credentials(image: str, layers: Sequence[layer_search.OwnLayer]) -> None:
    """Neither a file of a layer above the base, nor the environment or the history that the image adds, tells one.

    Raises:
        NotYet: one does; says where, and not the credential.
    """
    found = layer_search.secrets([*layers, _told_by_configuration(image)])
    if found:
        raise NotYet(
            "whoever has the image has " + ", ".join(f"{what} (in {path})" for path, what in found.items()),
            expected="no credentials in any layer, in the environment or in the history",
            look="what is copied as a whole folder (`Dockerfile.dockerignore` beside the Dockerfile keeps files out), ENV and ARG; `docker history --no-trunc`",
        )


def _told_by_configuration(image: str) -> layer_search.OwnLayer:
    """What `docker image inspect` and `docker history` tell everybody beyond the base's, in the form of files."""
    base = bases.ensure().runtime
    environment, of_base = (inspection.attributes(name)["Config"].get("Env") or [] for name in (image, base))
    history, base_history = ([str(e["CreatedBy"]) for e in client().api.history(name)] for name in (image, base))
    # A name in small letters is a name, too; build arguments stand in the middle of a line, as in `RUN |1 TOKEN=…`.
    named = (entry.partition("=") for entry in environment if entry not in of_base)
    lines = [line for line in history if line not in base_history]
    told = {
        "ENV": "\n".join(f"{re.sub('[^A-Z]', '_', name.upper())}={value}" for name, _, value in named),
        "docker history": "\n".join([*lines, *(word for line in lines for word in line.split())]),
    }
    return layer_search.OwnLayer("", frozenset(told), {where: text.encode() for where, text in told.items()})


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
