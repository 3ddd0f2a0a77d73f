"""Building images with BuildKit: progress as it happens, and which steps came from the cache."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from docker.errors import ImageNotFound

from course_lib import ledger, shell
from course_lib.errors import CourseError
from course_lib.images.engine_client import client
from course_lib.lab import display
from course_lib.lab.steps import record
from course_lib.settings import CHECKOUT, settings

#: Called with the steps so far whenever one of them changes; a notebook draws them, the command line prints them.
Watcher = Callable[[list["BuildStep"]], None]
watcher: ContextVar[Watcher | None] = ContextVar("watcher", default=None)


@dataclass
class BuildStep:
    """One vertex of the build: an instruction of a Dockerfile."""

    name: str
    cached: bool = False
    seconds: float | None = None
    last_line: str = ""


@dataclass(frozen=True)
class Built:
    """What a finished build left."""

    reference: str
    seconds: float
    steps: tuple[BuildStep, ...] = field(repr=False)

    def step(self, words: str) -> BuildStep:
        """The instruction whose text contains these words.

        Raises:
            CourseError: there is none.
        """
        for step in self.steps:
            if words in step.name:
                return step
        raise CourseError(f"the build had no instruction with {words!r}", why="\n".join(s.name for s in self.steps))


class PlainProgress:
    """Reads BuildKit's `--progress=plain` line by line (its format has stood still for years; rawjson is newer than many engines)."""

    _LINE = re.compile(r"^#(\d+) (.*)$")
    _DONE = re.compile(r"^DONE (\d+(?:\.\d+)?)s$")
    _OUTPUT = re.compile(r"^\d+\.\d+ (.*)$")

    def __init__(self) -> None:
        self._by_number: dict[str, BuildStep] = {}

    @property
    def steps(self) -> list[BuildStep]:
        """Instructions only: `[stage 2/5] RUN …`, without BuildKit's own errands."""
        return [
            s
            for s in self._by_number.values()
            if s.name.startswith("[") and not s.name.startswith(("[internal]", "[auth]"))
        ]

    def feed(self, line: str) -> bool:
        """Takes a line; says whether a step changed."""
        if not (match := self._LINE.match(line)):
            return False
        number, text = match.groups()
        step = self._by_number.get(number)
        if step is None:
            self._by_number[number] = BuildStep(text)
        elif text == "CACHED":
            step.cached, step.seconds = True, 0.0
        elif done := self._DONE.match(text):
            step.seconds = float(done.group(1))
        elif output := self._OUTPUT.match(text):
            step.last_line = output.group(1)
        else:
            return False
        return True


def build(
    context: Path,
    *,
    tag: str,
    file: Path | None = None,
    target: str | None = None,
    args: Mapping[str, str] | None = None,
    contexts: Mapping[str, Path] | None = None,
    labels: Mapping[str, str] | None = None,
    lifetime: ledger.Lifetime = "run",
    no_cache: bool = False,
    network: str | None = None,
    platform: str | None = None,
    timeout: float = 1800,
) -> Built:
    """Builds an image and tags it.

    The host's certificate authorities are offered as the secret `ca_bundle`: a Dockerfile that installs packages can
    mount it, and it never becomes part of the image.

    Args:
        context: folder that COPY reads from.
        tag: name and tag of the result; `latest` is refused, because nobody can tell later which one it was.
        lifetime: *run* images go when the session ends; their build cache stays.
        platform: another one than the engine's own, such as linux/arm64. COPY works for any; RUN needs a builder that
            can run such programs.
        timeout: seconds.

    Raises:
        CourseError: the build failed; says which instruction, and what can be done.
    """
    if tag.rsplit("/", 1)[-1].partition(":")[2] in ("", "latest"):
        raise CourseError(f"{tag!r} has no version in its tag", do="Give it one, as in inference-server:0.1.0.")
    if not context.is_dir():
        raise CourseError(f"there is no folder {context} to build from", do="Check the path.")
    command = ["docker", "buildx", "build", *_builder(), "--progress=plain", f"--tag={tag}"]
    command += [f"--file={_from_checkout(file)}"] if file else []
    command += [f"--target={target}"] if target else []
    command += [f"--build-arg={key}={value}" for key, value in (args or {}).items()]
    command += [f"--build-context={key}={_from_checkout(value)}" for key, value in (contexts or {}).items()]
    command += ["--no-cache"] if no_cache else []
    command += [f"--network={network}"] if network else []
    command += [f"--platform={platform}"] if platform else []
    if (bundle := settings().ca_bundle) is not None:
        command += [f"--secret=id=ca_bundle,src={bundle}"]
    shown = shell.readable([*command, _from_checkout(context)])
    command += ledger.label_arguments(lifetime, "image", reference=tag)
    command += [f"--label={key}={value}" for key, value in (labels or {}).items()]
    shell.announce(shown)

    before = image_id(tag)
    ledger.write_down("image", tag, lifetime)
    progress = PlainProgress()
    watch = watcher.get() or _draw()

    def on_line(line: str) -> None:
        if progress.feed(line):
            watch(progress.steps)

    started = time.monotonic()
    try:
        shell.run(
            [*command, _from_checkout(context)],
            show=False,
            cwd=CHECKOUT,
            timeout=timeout,
            on_line=on_line,
            env={"BUILDX_NO_DEFAULT_ATTESTATIONS": "1"},
        )
    except shell.CommandError as error:
        raise explain(error, tag) from None
    built = Built(tag, time.monotonic() - started, tuple(progress.steps))
    if before and before != image_id(tag):
        # The tag has moved on. Unless the old image has another name or a container, nobody would ever find it again.
        shell.run(["docker", "image", "rm", before], show=False, check=False)
    cached = sum(step.cached for step in built.steps)
    record(
        "image.built",
        "docker",
        tag,
        id=image_id(tag)[:19],
        instructions=len(built.steps),
        from_cache=cached,
        seconds=round(built.seconds, 1),
    )
    return built


@cache
def _builder() -> tuple[str, ...]:
    """Nothing where the current builder is the engine's own; else options that choose that one.

    A builder in a container of its own neither finds this engine's images for FROM nor leaves its result here.
    """
    current = shell.run(["docker", "buildx", "inspect"], show=False, check=False, timeout=30).stdout
    if re.search(r"^Driver:\s+docker$", current, re.M):
        return ()
    return (f"--builder={shell.run(['docker', 'context', 'show'], show=False).output}",)


def _from_checkout(path: Path) -> str:
    """A path as one types it in the checkout's folder; whole where it lies elsewhere."""
    whole = path.resolve()
    return str(whole.relative_to(CHECKOUT)) if whole.is_relative_to(CHECKOUT) else str(whole)


def shorten(instruction: str, width: int = 72) -> str:
    """An instruction on one line."""
    text = " ".join(instruction.split())
    return text if len(text) <= width else text[: width - 1] + "…"


def _draw() -> Watcher:
    """Draws a build's progress in a notebook, one line an instruction; elsewhere it shows nothing."""
    live = display.Live()

    def draw(steps: list[BuildStep]) -> None:
        lines = []
        for step in steps[-12:]:
            state = (
                "from the cache"
                if step.cached
                else f"{step.seconds:.1f} s"
                if step.seconds is not None
                else "… " + step.last_line[:60]
            )
            lines.append(f"{shorten(step.name):<72}  {state}")
        live.draw_text("\n".join(lines))

    return draw


def image_id(reference: str) -> str:
    """The engine's id of an image (sha256:…); empty when it has none of that name."""
    try:
        return str(client().images.get(reference).id)
    except ImageNotFound:
        return ""


_EXPLANATIONS: tuple[tuple[str, str, str], ...] = (
    (
        r"no space left on device",
        "the disk is full",
        "Free some: `course cleanup --all`, or `docker system df` to see what holds it.",
    ),
    (
        r"(failed to resolve source metadata|pull access denied|failed to do request|not found: manifest unknown|failed to authorize)",
        "a base image could not be had",
        "Check its name; without a registry, use a base that `docker image ls` lists (IMAGES=debian builds them).",
    ),
    (
        r"(dockerfile parse error|unknown instruction|no build stage in current context)",
        "the Dockerfile can't be read",
        "Look at the line it names.",
    ),
    (
        r"failed to compute cache key.*not found|failed to calculate checksum",
        "COPY names a file that is not in the build context",
        "Check the path, and .dockerignore.",
    ),
    (
        r"base name .* should not be blank|failed to parse stage name",
        "a FROM has no image",
        "Give the build argument that FROM uses, as in --build-arg BASE_IMAGE=…",
    ),
    (
        r"exec format error",
        "this builder can't run programs of that platform",
        "`docker buildx ls` lists what it can. QEMU adds platforms to a Linux host (packages qemu-user-static and binfmt-support); a builder on a machine of that platform is faster (`docker buildx create --help`).",
    ),
    (
        r"did not complete successfully",
        "an instruction of the Dockerfile failed",
        "The lines above it say what the command printed.",
    ),
)


def explain(error: shell.CommandError, tag: str) -> CourseError:
    """Says in a sentence what BuildKit said in thirty lines."""
    for pattern, what, do in _EXPLANATIONS:
        if re.search(pattern, error.stderr, re.I):
            return CourseError(f"building {tag} failed: {what}", why=_failing_part(error.stderr), do=do)
    return CourseError(
        f"building {tag} failed", why=_failing_part(error.stderr), do="Read the lines above from the bottom up."
    )


def _failing_part(stderr: str) -> str:
    """BuildKit's own summary at the end: the failing step, its output, the Dockerfile's lines."""
    lines = [line for line in stderr.splitlines() if line.strip()]
    start = next((i for i, line in enumerate(lines) if line.startswith("------")), max(0, len(lines) - 10))
    return "\n".join(lines[start:][-25:])
