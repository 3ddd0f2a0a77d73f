"""Weights baked into an image against weights in a volume: the same service both ways, measured."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from course_lib import ledger, shell
from course_lib.exercises import ticket_router
from course_lib.images import bases, inspection, layer_search
from course_lib.lab.exercise import STARTERS, NotYet
from course_lib.settings import settings

BAKED = STARTERS / "4.4.1" / "mounted-weights"


@contextmanager
def volume(image: str, weights: Path) -> Iterator[str]:
    """A named volume with model.json in it, for the length of the block."""
    name, helper = settings().object_name("weights"), settings().object_name("weights-copy")
    ledger.write_down("volume", name)
    ledger.write_down("container", helper)
    mount = f"--mount=type=volume,src={name},dst=/models"
    try:
        shell.run(["docker", "volume", "create", *ledger.label_arguments(), name], show=False)
        shell.run(["docker", "create", f"--name={helper}", mount, *ledger.label_arguments(), image], show=False)
        shell.run(["docker", "cp", str(weights / "model.json"), f"{helper}:/models/model.json"], show=False)
        shell.run(["docker", "rm", helper], show=False)
        yield name
    finally:
        shell.run(["docker", "rm", "--force", helper], show=False, check=False)
        shell.run(["docker", "volume", "rm", "--force", name], show=False, check=False)
        ledger.strike("container", helper)
        ledger.strike("volume", name)


def require_no_weights(image: str) -> None:
    """No layer above the base holds a model.json, deleted ones included.

    Raises:
        NotYet: one does.
    """
    for layer in layer_search.own_layers(image, above=bases.ensure().runtime):
        for path in layer.paths:
            if path.endswith("/model.json"):
                raise NotYet(
                    f"a layer still holds {path}, by `{layer.instruction}`",
                    expected="an image without weights in any of its layers",
                    look="the instruction named above; deleting in a later layer is too late",
                )


def compare(folder: Path) -> dict[str, object]:
    """Builds and runs both variants with two versions of the weights; returns what it measured.

    Raises:
        NotYet: the learner's image holds weights, or does not take those that are mounted.
    """
    old, new = ticket_router.weights(1), ticket_router.weights(2)
    mounted = ticket_router.build(folder, "mounted", weights=old)
    require_no_weights(mounted.reference)
    with volume(mounted.reference, new) as name:
        options = (f"--mount=type=volume,src={name},dst=/models,readonly", "--read-only")
        with ticket_router.running(mounted.reference, "mounted", options=options) as service:
            right = service.require_right()
            answered_by = service.field(service.ask("are you there"), "model")
            mounted_start = service.seconds_to_first_answer
    if answered_by != ticket_router.model_version(new):
        raise NotYet(
            f"model {answered_by} answered, and model {ticket_router.model_version(new)} is mounted at /models",
            expected="the mounted weights answer",
            look="MODEL_PATH",
        )
    ticket_router.build(BAKED, "baked", weights=old)
    # Only the weights changed: one image has to be built again, the other stays as it is.
    rebuilt_baked = ticket_router.build(BAKED, "baked", weights=new)
    rebuilt_mounted = ticket_router.build(folder, "mounted", weights=new)
    if not all(step.cached for step in rebuilt_mounted.steps if "] FROM" not in step.name):
        raise NotYet(
            "new weights changed the image",
            expected="an image that is the same for all weights",
            look="what its Dockerfile copies",
        )
    with ticket_router.running(rebuilt_baked.reference, "baked") as service:
        service.require_right(1)
        baked_start = service.seconds_to_first_answer
    sizes = [inspection.size(built.reference) / 1e6 for built in (rebuilt_baked, rebuilt_mounted)]
    return {
        "size": f"baked in {sizes[0]:.2f} MB, mounted {sizes[1]:.2f} MB",
        "build after new weights": f"baked in {rebuilt_baked.seconds:.2f} s, mounted {rebuilt_mounted.seconds:.2f} s (nothing to do)",
        "start to first answer": f"baked in {baked_start:.2f} s, mounted {mounted_start:.2f} s",
        "what grows": f"baked in, every new model adds {sizes[0] - sizes[1]:.2f} MB to the registry and to every pull; mounted, none",
        "right": right,
    }
