"""The flawed service that the exercises of lab 4.4.1 mend: built from a learner's Dockerfile, started, asked, hurt."""

from __future__ import annotations

import hashlib
import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from course_lib import ledger, shell, waits
from course_lib.errors import CourseError
from course_lib.images import bases, buildkit, containers
from course_lib.lab.exercise import STARTERS, NotYet
from course_lib.settings import settings

SERVICE = STARTERS / "4.4.1" / "service"
PORT = 8080

#: Questions that are not in the training data, and where they belong.
QUESTIONS = (
    ("kubectl get pods says CrashLoopBackOff", "kubernetes"),
    ("every small code change makes pip install run again, why", "docker"),
    ("how much does my SageMaker endpoint cost in a month", "cloud"),
    ("compose starts my api before the database is healthy", "compose"),
    ("my streamlit page forgets the chat history", "demo"),
)


def build(
    folder: Path,
    name: str,
    *,
    service: Path = SERVICE,
    weights: Path | None = None,
    base: str | None = None,
) -> buildkit.Built:
    """Builds the service with a folder's Dockerfile; the tag comes from everything that goes into it.

    Args:
        folder: has the Dockerfile; its other files can be had by `COPY --from=mine`.
        service: the build context.
        weights: a folder with model.json, for `COPY --from=weights`.
        base: another image than this machine's slim base.
    """
    found = bases.ensure()
    args = {"BASE_IMAGE": base or found.runtime, "BUILDER_IMAGE": found.builder}
    contexts = {"mine": folder} | ({"weights": weights} if weights else {})
    mark = hashlib.sha256(repr(args).encode())
    for where in (service, *contexts.values()):
        for file in sorted(p for p in where.rglob("*") if p.is_file() and "__pycache__" not in p.parts):
            mark.update(str(file.relative_to(where)).encode() + b"\0" + file.read_bytes() + b"\0")
    tag = f"{settings().object_name(f'ticket-router-{name}')}:{mark.hexdigest()[:12]}"
    try:
        return buildkit.build(service, file=folder / "Dockerfile", tag=tag, args=args, contexts=contexts)
    except CourseError as error:
        if advice := _advice(error.why):
            raise CourseError(error.what, why=error.why, do=advice) from None
        raise


def _advice(said: str) -> str:
    """What BuildKit's words mean here, for the two mistakes that it tells in words of its own."""
    if re.search(r"base name \(.*\) should not be blank|invalid reference format", said):
        return "Put `ARG BASE_IMAGE` (or BUILDER_IMAGE) above the first FROM: below it, a FROM can't see it."
    if re.search(r'"/[^"]*": not found', said):
        return (
            "Paths in COPY start in the build context, labs/starters/4.4.1/service; --from=mine starts in your folder."
        )
    return ""


def weights(version: int = 1) -> Path:
    """A folder with a trained model.json; version 2 has other weights. Trained once, then kept."""
    settings_of = {1: ("4", "0.1"), 2: ("5", "0.3")}[version]
    trained_from = [SERVICE / "router.py", SERVICE / "train.py", SERVICE / "data" / "tickets.tsv"]
    mark = hashlib.sha256(b"\0".join(file.read_bytes() for file in trained_from)).hexdigest()[:12]
    folder = settings().state_dir / "exercises" / f"ticket-weights-{mark}-{version}"
    if not (folder / "model.json").is_file():
        ledger.write_down("folder", str(folder), "kept")
        longest, smoothing = settings_of
        command = [sys.executable, "-B", str(SERVICE / "train.py"), f"--out={folder / 'model.json'}"]
        shell.run([*command, f"--longest={longest}", f"--smoothing={smoothing}"], show=False)
        (folder / "model.json").chmod(0o644)  # whatever this host's umask: a container's user has to read it
    return folder


def model_version(folder: Path) -> str:
    """How the service names these weights in its answers."""
    return hashlib.sha256((folder / "model.json").read_bytes()).hexdigest()[:12]


@dataclass
class TicketRouter:
    """A service that answers now."""

    container: containers.Container
    seconds_to_first_answer: float

    def try_to_ask(self, text: str) -> httpx.Response:
        """A question to a service that may not listen yet: httpx's errors come through."""
        return httpx.post(f"{self.container.url}/route", json={"text": text}, timeout=10)

    def ask(self, text: str) -> httpx.Response:
        """The answer to a question, whatever its status.

        Raises:
            NotYet: nobody answers (any more).
        """
        try:
            return self.try_to_ask(text)
        except httpx.HTTPError as error:
            raise self._silent("POST /route", error) from None

    def version(self) -> str:
        """The version of the code that runs.

        Raises:
            NotYet: GET /healthz does not say.
        """
        try:
            answer = httpx.get(f"{self.container.url}/healthz", timeout=10)
        except httpx.HTTPError as error:
            raise self._silent("GET /healthz", error) from None
        return self.field(answer, "version")

    def field(self, answer: httpx.Response, name: str) -> str:
        """One field of an answer.

        Raises:
            NotYet: the answer is no JSON object, or has no such field: a service of one's own, perhaps.
        """
        try:
            return str(answer.json()[name])
        except (ValueError, KeyError, TypeError):
            raise NotYet(
                f"{answer.request.method} {answer.request.url.path} was answered with status {answer.status_code}: {answer.text[:300]}",
                expected=f"JSON with {name!r} in it, as service.py in labs/starters/4.4.1/service answers",
                look="which service runs there: the COPY of service.py",
            ) from None

    def _silent(self, what: str, error: httpx.HTTPError) -> NotYet:
        return NotYet(
            f"{what} got no answer ({error or type(error).__name__}); the container is {self.container.status()[0]}",
            expected="an answer, even when the model is dead: the service as it is in labs/starters/4.4.1/service",
            look=f"the COPY of service.py, and the container's log:\n{self.container.logs()}",
        )

    def require_right(self, count: int = len(QUESTIONS)) -> str:
        """Asks questions that the model has not seen.

        Raises:
            NotYet: one of them was answered wrongly, in another form, or not at all.
        """
        for text, label in QUESTIONS[:count]:
            answer = self.ask(text)
            if answer.status_code != 200 or self.field(answer, "label") != label:
                raise NotYet(
                    f"{text!r} was answered with status {answer.status_code}: {answer.text}",
                    expected=f"status 200 and the label {label}",
                    look=f"the service's own words above; its log:\n{self.container.logs()}",
                )
        return f"{count} of {count}"

    def inside(self) -> dict[str, str]:
        """The main process as the kernel sees it: /proc/1/status, read inside the container."""
        lines = self.container.execute("cat", "/proc/1/status").splitlines()
        return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}

    def probe_words(self) -> str:
        """How the last health probe ended, and the last line it printed: of a traceback, the one that says what."""
        log = (self.container.inspect()["State"].get("Health") or {}).get("Log") or []
        if not log:
            return "nothing yet"
        said = str(log[-1]["Output"]).strip().splitlines()
        return f"status {log[-1]['ExitCode']}, {said[-1][:200] if said else 'without a word'}"

    def kill_model(self) -> None:
        """Ends the model's process the hard way, as the kernel does when memory runs out.

        Raises:
            NotYet: questions are answered all the same, or nothing answers at all.
        """
        line = "kill -9 $(grep -lx model-worker /proc/[0-9]*/comm | cut -d/ -f3)"
        shell.announce(shell.readable(["docker", "exec", self.container.name, "sh", "-c", line]))
        seen = "the model's process was killed"
        try:
            self.container.execute("sh", "-c", line)
        except CourseError as error:  # no such process; or the container ended with it, which `ask` sees
            seen = f"no process called model-worker could be killed ({error.why})"
        answer = self.ask("are you there")
        if answer.status_code != 503:
            raise NotYet(
                f"{seen}, and a question was answered with status {answer.status_code}",
                expected="503: the service as it is in labs/starters/4.4.1/service",
                look="the COPY of service.py",
            )


@contextmanager
def running(
    image: str, name: str, *, options: Sequence[str] = (), env: Mapping[str, str] | None = None
) -> Iterator[TicketRouter]:
    """The service in a container, from its first answer to the end of the block.

    Raises:
        NotYet: it never answered, or with an error; says what its log says.
    """
    started = time.monotonic()
    with containers.running(image, f"exercise-{name}", port=PORT, options=options, env=env) as container:
        found = TicketRouter(container, 0.0)

        def answers() -> None:
            status, _ = container.status()
            try:
                answer = found.try_to_ask("are you there")
            except httpx.HTTPError as error:
                if status != "running":
                    said = container.logs()
                    raise CourseError(
                        f"the container ended: {said}"
                        if said
                        else "the container ended and printed nothing: does the last stage have a CMD?"
                    ) from None
                raise waits.NotYet(str(error)) from None
            if answer.status_code != 200:
                raise CourseError(f"a question was answered with status {answer.status_code}: {answer.text}")

        try:
            waits.until(answers, what="the first answer", timeout=60, every=0.05, diagnose=container.logs)
        except CourseError as error:
            raise NotYet(
                error.what + (f"\n{error.why}" if error.why else ""),
                expected=f"the service answers questions on port {PORT}",
                look="CMD, what is copied where, and what the service says itself; the settings it reads (PORT, MODEL_PATH, JOURNAL) stand at the top of service.py",
            ) from None
        found.seconds_to_first_answer = time.monotonic() - started
        yield found
