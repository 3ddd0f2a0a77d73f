"""The exercises of lab 4.4.1: a small service with every flaw an image can have, mended one by one.

A check builds and runs what the learner wrote and looks at the engine. Hints come in three: what to think about, where
to look, how it is said.
"""

from __future__ import annotations

import re
import secrets
import shutil
import tempfile
from pathlib import Path

from course_lib.errors import CourseError
from course_lib.exercises import leaked_token, mounted_weights, moving_tag, terminal, ticket_checks, ticket_router
from course_lib.images import bases, buildkit, inspection, layer_search
from course_lib.images.containers import ASK_EVERY_SECOND
from course_lib.lab.exercise import STARTERS, NotYet, exercise
from course_lib.settings import settings

__all__ = ["leak", "terminal_task"]

LAB = "4.4.1"

#: What a cautious cluster gives a container: nothing to write to but /tmp, no capability, no way to gain one.
LOCKED_DOWN = ("--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--tmpfs=/tmp")

leak = leaked_token.build
terminal_task = terminal.show_task


@exercise(
    LAB,
    "layer-order",
    "A change of code must not train the model again",
    files=True,
    hints=(
        "A layer comes from the cache as long as everything before it is the same. What does the training depend on, and what does it not?",
        "`COPY . .` brings service.py in before the training. Split it: the training reads router.py, train.py and data.",
        "First COPY what train.py reads, then RUN it, and COPY service.py after that.",
    ),
)
def layer_order(folder: Path) -> dict[str, object]:
    first = ticket_router.build(folder, "layer-order")
    ticket_checks.trainings(first)
    with tempfile.TemporaryDirectory() as held:
        context = Path(held) / "context"
        shutil.copytree(ticket_router.SERVICE, context, ignore=shutil.ignore_patterns("__pycache__"))
        version = secrets.token_hex(3)
        code = context / "service.py"
        code.write_text(re.sub(r'^VERSION = ".*"$', f'VERSION = "{version}"', code.read_text(), flags=re.M))
        rebuilt = ticket_router.build(folder, "layer-order", service=context)
        if again := [step for step in ticket_checks.trainings(rebuilt) if not step.cached]:
            raise NotYet(
                f"after a change of service.py the model was trained again: {again[0].name}, {again[0].seconds} s",
                expected="each instruction that trains comes from the cache",
                look="what is copied before it",
            )
        with ticket_router.running(rebuilt.reference, "layer-order") as service:
            right = service.require_right()
            if service.version() != version:
                raise NotYet(
                    f"version {service.version()} of the code answers, and {version} was built",
                    expected="the changed service.py runs",
                    look="when and from where service.py is copied",
                )
        before = ticket_router.build(STARTERS / LAB / "layer-order", "layer-order-before", service=context)
    return {
        "rebuild as it was": f"{before.seconds:.1f} s",
        "rebuild now": f"{rebuilt.seconds:.1f} s",
        "instructions from the cache": f"{sum(s.cached for s in rebuilt.steps)} of {len(rebuilt.steps)}",
        "right": right,
    }


@exercise(
    LAB,
    "small-image",
    "Leave behind what only building needs",
    files=True,
    hints=(
        "What of the image does `python3 service.py` read? Three files. Everything else came along because it was there.",
        "A Dockerfile may have several FROM. Each starts empty-handed; only the last one becomes the image.",
        "Name the first stage (`FROM … AS trainer`), start a second one from BASE_IMAGE, and fetch the model with `COPY --from=trainer`.",
    ),
)
def small_image(folder: Path) -> dict[str, object]:
    built = ticket_router.build(folder, "small-image")
    before = ticket_router.build(STARTERS / LAB / "small-image", "small-image-before")
    stages = ticket_checks.stages(built)
    if len(stages) < 2:
        raise NotYet(
            "the build has one stage",
            expected="one that trains on BUILDER_IMAGE, and one that runs on BASE_IMAGE",
            look="the FROM lines",
        )
    size, was = inspection.size(built.reference), inspection.size(before.reference)
    if size > 0.4 * was:
        raise NotYet(
            f"the image has {size / 1e6:.0f} MB, {size / was:.0%} of the starter's size",
            expected=f"at most 40 % of {was / 1e6:.0f} MB",
            look="`docker history`, largest layers first; what is deleted later is still carried",
        )
    layers = layer_search.own_layers(built.reference, above=bases.ensure().runtime)
    ticket_checks.require_no_build_tools(layers)
    ticket_checks.require_no_training_data(layers)
    with ticket_router.running(built.reference, "small-image") as service:
        right = service.require_right()
    return {"size": f"{was / 1e6:.0f} -> {size / 1e6:.0f} MB ({size / was:.0%})", "stages": len(stages), "right": right}


@exercise(
    LAB,
    "dead-model",
    "A health check that notices a dead model",
    files=True,
    hints=(
        "An open port proves that somebody listens. What would a user do to find out whether the service works?",
        "POST /route answers 200 when the model does, and 503 when it does not. A probe tells Docker by its exit status.",
        "Python's urllib.request.urlopen raises on a 503, and an exception that nobody catches ends Python with status 1. With `data=` it posts.",
    ),
)
def dead_model(folder: Path) -> dict[str, object]:
    built = ticket_router.build(folder, "dead-model")
    with ticket_router.running(built.reference, "dead-model", options=ASK_EVERY_SECOND) as service:
        seconds = ticket_checks.require_honest_health(service)
        return {"noticed after": f"{seconds:.1f} s (asked every second)", "the probe said": service.probe_words()}


@exercise(
    LAB,
    "least-privilege",
    "No root, nothing to write to",
    files=True,
    hints=(
        "Two things are wrong: who runs the service, and where it writes. A read-only root file system does not care who you are.",
        "JOURNAL says where the lines go. In a container they are best off where `docker logs` finds them.",
        "USER takes a number, and the user need not exist. Should you make one, keep away from 1000: on many bases that is somebody already.",
    ),
)
def least_privilege(folder: Path) -> dict[str, object]:
    built = ticket_router.build(folder, "least-privilege")
    taken = _base_with_uid_1000()
    try:
        ticket_router.build(folder, "least-privilege-uid-1000", base=taken)
    except CourseError as error:
        raise NotYet(
            f"on a base where uid 1000 is taken, as on Ubuntu's, the build fails:\n{error.why}",
            expected="a Dockerfile that builds there too",
            look="the number of your user",
        ) from None
    with ticket_router.running(built.reference, "least-privilege", options=LOCKED_DOWN) as service:
        uid = _require_not_root(service)
        return {"uid": uid, "runs with": " ".join(LOCKED_DOWN), "right": service.require_right()}


def _base_with_uid_1000() -> str:
    here = Path(__file__).parent
    base = bases.ensure().runtime
    tag = f"{settings().object_name('uid-1000-taken')}:{base.rpartition(':')[2]}"
    return buildkit.build(here, file=here / "uid-1000-taken.Dockerfile", tag=tag, args={"BASE_IMAGE": base}).reference


def _require_not_root(service: ticket_router.TicketRouter) -> int:
    """The main process's user, as the kernel inside the container gives it.

    Raises:
        NotYet: it is root.
    """
    uid = int(service.inside()["Uid"].split()[0])
    if uid == 0:
        raise NotYet(
            "the service runs as uid 0, root",
            expected="any other uid",
            look="the instruction USER, after everything that needs root",
        )
    return uid


@exercise(
    LAB,
    "leaked-secret",
    "Find the token that was deleted",
    hints=(
        "An image is a stack of archives. Deleting a file in a layer puts a note above it: not there any more. The archive below keeps it.",
        "`images.layer_files(leaky)` gives, for each layer, its instruction and the small files in it: loop over it and print the instructions and a few names, not everything. (In a terminal: `docker image save`, then tar.)",
        "`COPY . .` took everything along, /srv/.env too: look in that layer. The answer is what stands after ROUTER_TOKEN=.",
    ),
)
def leaked_secret(answer: object) -> dict[str, object]:
    image = leaked_token.require_found(answer)
    deleted = not any(path.endswith("/.env") for path in inspection.files(image))
    return {"found in": image, "visible in a container of it": "no" if deleted else "yes"}


@exercise(
    LAB,
    "pin-by-digest",
    "A reference that keeps its meaning",
    hints=(
        "A tag is a label that its owner may stick on another image tomorrow. What names an image by its content?",
        "A registry gives each manifest a digest, and `name@sha256:…` asks for exactly that one. After a pull, the engine knows it.",
        "`docker image inspect --format '{{json .RepoDigests}}' NAME:TAG` lists references by digest; take the one of this registry.",
    ),
)
def pin_by_digest(pin: moving_tag.Pin) -> dict[str, object]:
    return moving_tag.require_keeps_meaning(pin)


@exercise(
    LAB,
    "mounted-weights",
    "Weights in a volume instead of the image",
    files=True,
    hints=(
        "Code and weights change at different times, for different reasons, made by different people. Which of them belongs into the image?",
        "The service reads MODEL_PATH. A volume with model.json is mounted at /models, read-only.",
        "Take out the COPY of the weights, and set MODEL_PATH with ENV to the file as the container sees it.",
    ),
)
def weights_in_a_volume(folder: Path) -> dict[str, object]:
    return mounted_weights.compare(folder)


@exercise(
    LAB,
    "in-a-terminal",
    "Build and start it by hand",
    hints=(
        "Two commands: `docker build` with --file, --build-arg and --tag, and `docker run` with --detach and --name. `--help` lists the options of both.",
        "--publish takes ADDRESS:HOSTPORT:CONTAINERPORT. Without an address, everybody on your network may ask your container; HOSTPORT may be left empty.",
        "The other two options of `docker run` are --memory and --restart. A container that has the name already goes away with `docker rm --force NAME`.",
    ),
)
def in_a_terminal() -> dict[str, object]:
    return terminal.require_container()


@exercise(
    LAB,
    "own-dockerfile",
    "Your own Dockerfile",
    files=True,
    deliverable=True,
    hints=(
        "You have done each part of it above: two stages, what changes last comes last, a user with a number, a probe that asks the model.",
        "Start with the first stage until `docker build --target` works, then add the second; the service's log says what it misses.",
        "The last stage copies three files: model.json from the first stage, router.py and service.py from the build context. Then USER, HEALTHCHECK and CMD.",
    ),
)
def own_dockerfile(folder: Path) -> dict[str, object]:
    built = ticket_router.build(folder, "own")
    ticket_checks.require_not_on_builder(built.reference)
    layers = layer_search.own_layers(built.reference, above=bases.ensure().runtime)
    ticket_checks.require_no_build_tools(layers)
    ticket_checks.require_no_training_data(layers)
    ticket_checks.require_no_credentials(built.reference, layers)
    with ticket_router.running(built.reference, "own", options=(*LOCKED_DOWN, *ASK_EVERY_SECOND)) as service:
        uid = _require_not_root(service)
        right = service.require_right()
        noticed = ticket_checks.require_honest_health(service)
    return {
        "megabytes": round(inspection.size(built.reference) / 1e6, 1),
        "layers": len(layers),
        "build_seconds": round(built.seconds, 1),
        "start_to_first_answer_seconds": round(service.seconds_to_first_answer, 2),
        "dead_model_noticed_seconds": round(noticed, 1),
        "uid": uid,
        "runs_with": " ".join(LOCKED_DOWN),
        "questions_right": right,
        "scanned": "no build tools or training data in any layer; no credentials in layers, environment or history",
    }
