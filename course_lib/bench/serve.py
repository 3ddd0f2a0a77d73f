"""`course bench serve`: our server against the bare engine and against what a learner would pick instead.

Everything runs on this machine in one go: each round asks every contestant, in a shuffled order, and each figure is the median
of the rounds. The method and the shape of the result are in serve.schema.json.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import psutil

from course_lib.bench import contestants, load, workload
from course_lib.bench.contestants import Contestant, Running, Task
from course_lib.bench.goals import goals
from course_lib.bench.machine import cpu_name, cpus, ended_by_sigterm
from course_lib.errors import CourseError
from course_lib.settings import CHECKOUT

CLIENTS = 32
_BARE = Path(__file__).parent / "bare_engine.py"
_TUNING_SECONDS = 3
_PACKAGES = ("onnxruntime", "tokenizers", "fastapi", "uvicorn")
_PEER_PACKAGES = ("litserve", "bentoml", "flask", "gunicorn", "fastapi", "uvicorn", "onnxruntime-genai", "onnxruntime")

Say = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """How long and how often; seconds are those of one load."""

    rounds: int = 5
    seconds: int = 8
    warm_up: int = 2
    tune: bool = True

    @classmethod
    def quick(cls) -> Plan:
        """Whether it works, in a minute or two; its figures mean little."""
        return cls(rounds=1, seconds=3, warm_up=1, tune=False)


@dataclass
class Entry:
    """What was measured of one contestant, a list of samples for each figure, and why a figure is missing."""

    settings: Mapping[str, str] = field(default_factory=dict)
    samples: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    why: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, value: float | None) -> None:
        if value is not None:
            self.samples[name].append(value)

    def median(self, name: str) -> float | None:
        return round(statistics.median(self.samples[name]), 3) if self.samples.get(name) else None

    def as_json(self) -> dict[str, Any]:
        classifier = {name: self.median(f"classifier_{name}") for name in ("requests_per_s", "p50_ms", "p99_ms")}
        plain = (
            "tokens_per_s",
            "p50_ms",
            "p99_ms",
            "ttft_p99_ms",
            "ttft_p50_ms",
            "mixed_tokens_per_s",
            "mixed_p99_ms",
            "one_client_p50_ms",
            "decode_only_tokens_per_s",
            "start_to_ready_s",
            "rss_mb",
            "pss_mb",
        )
        return {
            **{name: self.median(name) for name in plain},
            "classifier": classifier,
            "settings": dict(self.settings),
            "why": self.why,
            "samples": {name: [round(value, 3) for value in values] for name, values in self.samples.items()},
        }


def figures(plan: Plan, *, only: list[str] | None = None, say: Say = lambda line: None) -> dict[str, Any]:
    """Measures and returns what the schema describes.

    Args:
        only: names of servers to measure; none means all. `bare_engine` is measured always.
        say: told what is being done.

    Raises:
        CourseError: the load client is missing, a name is not known, or our own server failed.
    """
    wrk = load.require_wrk()
    stream_client = load.stream_client()
    with tempfile.TemporaryDirectory(prefix="course-bench-") as held, ended_by_sigterm():
        bench = _Bench(plan, Path(held), stream_client, say)
        bench.invite(only)
        bench.tune()
        for number in range(plan.rounds):
            bench.round(number)
        return bench.report(wrk)


class _Bench:
    """One run: who takes part, what was measured so far."""

    def __init__(self, plan: Plan, folder: Path, stream_client: Path | str, say: Say) -> None:
        self.plan, self.folder, self.stream_client, self.say = plan, folder, stream_client, say
        self.load_before = os.getloadavg()[0]
        self.cpus, self.client_cpus = cpus()
        self.repository = workload.repository(folder)
        tutor = workload.newest(self.repository / "models" / "tutor")
        self.same = workload.texts(tutor, workload.same_length)
        self.mixed = workload.texts(tutor, workload.mixed_lengths)
        self.rows = workload.rows()
        self.servers: dict[str, Contestant] = {}
        self.entries: dict[str, Entry] = {}
        self.client_shares: dict[Task, list[float]] = defaultdict(list)
        self.orders: list[list[str]] = []
        self.first = 0
        self.bare_shape = f"{len(self.cpus)}x1"  # as our server has by default

    def invite(self, only: list[str] | None) -> None:
        """Ours, and the peers that can be had."""
        known = ["ours", "litserve", "bentoml", "flask", "fastapi"]
        for name in only or []:
            if name not in known:
                raise CourseError(f"there is no server {name!r} to measure", do=f"Choose from {', '.join(known)}.")
        wanted = only or known
        found = [contestants.ours(self.repository)] if "ours" in wanted else []
        if set(wanted) - {"ours"}:
            self.say("making the peers' environment from its lock, once")
            found += contestants.peers(self.repository, len(self.cpus))
        for contestant in found:
            if contestant.name in wanted:
                self.servers[contestant.name] = contestant
                self.entries[contestant.name] = Entry(contestant.variants[0])
        self.entries["bare_engine"] = Entry()

    # Choosing each peer's best settings

    def tune(self) -> None:
        """A short run of each variant; the one with the most tokens a second is measured. Its own documentation says to try."""
        if not self.plan.tune:
            return
        bare_rates: dict[str, int] = {}
        for shape in dict.fromkeys((f"{len(self.cpus)}x1", f"1x{len(self.cpus)}")):
            self.bare_shape = shape
            bare_rates[shape] = self.bare(self.same, CLIENTS, _TUNING_SECONDS)["tokens"]
        self.bare_shape = max(bare_rates, key=lambda shape: bare_rates[shape])
        for name, contestant in self.servers.items():
            rates = {}
            for number, variant in enumerate(contestant.variants if len(contestant.variants) > 1 else ()):
                self.say(f"tuning {name}: {' '.join(f'{key}={value}' for key, value in variant.items())}")
                try:
                    with self.start(contestant, "generate", variant) as running:
                        self.whole(running, self.bodies(contestant, self.same), CLIENTS, 1, warming_up=True)
                        self.settle()
                        rates[number] = self.whole(
                            running, self.bodies(contestant, self.same), CLIENTS, _TUNING_SECONDS
                        ).tokens_per_s
                except CourseError as error:
                    self.say(f"  {error.what}")
            if rates:
                self.entries[name].settings = contestant.variants[max(rates, key=lambda number: rates[number])]

    # One round

    def round(self, number: int) -> None:
        order = list(self.entries)
        random.Random(f"{workload.SEED}-{number}").shuffle(order)
        self.orders.append(order)
        for name in order:
            self.say(f"round {number + 1} of {self.plan.rounds}: {name}")
            if name == "bare_engine":
                self.bare_round()
            else:
                self.server_round(self.servers[name])

    def bare_round(self) -> None:
        entry = self.entries["bare_engine"]
        entry.settings = {"INSTANCES": self.bare_shape, "SLOTS": str(CLIENTS)}
        seconds = self.plan.seconds
        found = self.bare(self.same, CLIENTS, seconds)
        entry.add("tokens_per_s", found["tokens"] / found["seconds"])
        for name in ("p50_ms", "p99_ms", "ttft_p99_ms", "decode_only_tokens_per_s"):
            entry.add(name, found[name])
        found = self.bare(self.mixed, CLIENTS, seconds)
        entry.add("mixed_tokens_per_s", found["tokens"] / found["seconds"])
        entry.add("mixed_p99_ms", found["p99_ms"])
        entry.add("one_client_p50_ms", self.bare(self.same, 1, max(1, seconds // 2))["p50_ms"])

    def server_round(self, contestant: Contestant) -> None:
        """All tasks; a peer that fails in one has no figure there, with the reason. Ours must not fail."""
        tasks: list[tuple[Task, Callable[[Running, Entry], None]]] = [
            ("generate", self.generate),
            ("stream", self.stream),
            ("classify", self.classify),
        ]
        entry = self.entries[contestant.name]
        running: Running | None = None
        try:
            for task, measure in tasks:
                try:
                    if running is None or not contestant.one_process_for_all_tasks:
                        if running is not None:
                            running.end()
                        running = self.start(contestant, task, entry.settings)
                        if task == "generate":
                            self.at_rest(running, entry)
                    running.task = task
                    measure(running, entry)
                except CourseError as error:
                    if contestant.name == "ours":
                        raise
                    entry.why[task] = f"{error.what}: {' '.join(error.why.split())[:300]}"
        finally:
            if running is not None:
                running.end()

    def start(self, contestant: Contestant, task: Task, variant: Mapping[str, str]) -> Running:
        return Running(contestant, task, variant, self.cpus, self.folder)

    def at_rest(self, running: Running, entry: Entry) -> None:
        entry.add("start_to_ready_s", running.start_to_ready_s)
        self.settle()
        for name, value in running.memory_mb().items():
            entry.add(name, value)

    def generate(self, running: Running, entry: Entry) -> None:
        same = self.bodies(running.contestant, self.same)
        mixed = self.bodies(running.contestant, self.mixed, "mixed")
        self.check(running, same)
        self.whole(running, same, CLIENTS, self.plan.warm_up, warming_up=True)
        self.settled(running, same)
        found = self.whole(running, same, CLIENTS, self.plan.seconds)
        entry.add("tokens_per_s", found.tokens_per_s)
        entry.add("p50_ms", found.figures["p50_ms"])
        entry.add("p99_ms", found.figures["p99_ms"])
        if running.contestant.name == "ours":
            self.client_shares["generate"].append(found.cpu_share)
        self.settled(running, same)
        found = self.whole(running, mixed, CLIENTS, self.plan.seconds)
        entry.add("mixed_tokens_per_s", found.tokens_per_s)
        entry.add("mixed_p99_ms", found.figures["p99_ms"])
        self.settled(running, same)
        entry.add("one_client_p50_ms", self.whole(running, same, 1, max(1, self.plan.seconds // 2)).figures["p50_ms"])

    def stream(self, running: Running, entry: Entry) -> None:
        if isinstance(self.stream_client, str):
            entry.why["ttft_p99_ms"] = self.stream_client
            return
        contestant = running.contestant
        found = load.streams(
            self.stream_client,
            running.port,
            running.path,
            self.bodies(contestant, self.same, "stream"),
            contestant.marker,
            first=self.skip(),
            clients=CLIENTS,
            warm_up=self.plan.warm_up,
            seconds=self.plan.seconds,
            prefix=contestants.pinned(self.client_cpus),
        )
        entry.add("ttft_p50_ms", found.figures["ttft_p50_ms"])
        entry.add("ttft_p99_ms", found.figures["ttft_p99_ms"])
        if contestant.name == "ours":
            self.client_shares["stream"].append(found.cpu_share)
        self.settle()

    def classify(self, running: Running, entry: Entry) -> None:
        file = self.folder / f"{running.contestant.name}-rows"
        rows = workload.write(file, [running.contestant.row_body(row) for row in self.rows])
        self.whole(running, rows, CLIENTS, self.plan.warm_up, warming_up=True)
        self.settle()
        found = self.whole(running, rows, CLIENTS, self.plan.seconds)
        entry.add("classifier_requests_per_s", found.requests_per_s)
        entry.add("classifier_p50_ms", found.figures["p50_ms"])
        entry.add("classifier_p99_ms", found.figures["p99_ms"])
        if running.contestant.name == "ours":
            self.client_shares["classify"].append(found.cpu_share)

    # Pieces

    def bodies(self, contestant: Contestant, texts: list[workload.Text], kind: str = "same") -> Path:
        file = self.folder / f"{contestant.name}-{kind}"
        if not file.exists():
            workload.write(file, [contestant.text_body(text, kind == "stream") for text in texts])
        return file

    def skip(self) -> int:
        """Where the next run starts among the prompts, so that none is met again soon."""
        self.first += 977
        return self.first % workload.PROMPTS

    def whole(
        self, running: Running, bodies: Path, clients: int, seconds: int, *, warming_up: bool = False
    ) -> load.Load:
        return load.whole_answers(
            running.port,
            running.path,
            bodies,
            first=self.skip(),
            clients=clients,
            seconds=seconds,
            prefix=contestants.pinned(self.client_cpus),
            may_be_empty=warming_up,
        )

    def check(self, running: Running, bodies: Path) -> None:
        """An answer has as many tokens as were asked for; whoever gives fewer would look faster."""
        answer = self.ask(running, bodies)
        found = re.search(r'"completion_tokens": ?(\d+)', answer)
        if not found or int(found[1]) != workload.NEW_TOKENS:
            raise CourseError(f"{running.contestant.name} did not give {workload.NEW_TOKENS} tokens", why=answer[:400])

    def ask(self, running: Running, bodies: Path) -> str:
        with bodies.open() as lines:
            body = next(lines)
        with httpx.Client(base_url=f"http://127.0.0.1:{running.port}", timeout=60, trust_env=False) as http:
            answer = http.post(running.path, content=body, headers={"Content-Type": "application/json"})
        if answer.status_code != 200:
            raise CourseError(f"{running.contestant.name} answered {answer.status_code}", why=answer.text[:400])
        return answer.text

    def settled(self, running: Running, bodies: Path) -> None:
        """wrk leaves with requests under way, which some servers go on computing: wait for an answer, and a little longer."""
        self.ask(running, bodies)
        self.settle()

    def settle(self) -> None:
        time.sleep(1.0 if self.plan.tune else 0.2)

    def bare(self, texts: list[workload.Text], in_flight: int, seconds: int) -> dict[str, Any]:
        """The slot loop in a process of its own."""
        kind = "mixed" if texts is self.mixed else "same"
        bodies = self.bodies(contestants.ours(self.repository), texts, kind)
        repository, first = self.repository / "models", self.skip()
        arguments = [_BARE, repository, bodies, first, in_flight, self.plan.warm_up, seconds, self.bare_shape]
        command = [*contestants.pinned(self.cpus), sys.executable, *map(str, arguments)]
        done = subprocess.run(
            command,
            env={**os.environ, "PYTHONPATH": str(workload.SERVER)},
            capture_output=True,
            text=True,
            timeout=seconds + 120,
        )
        found = re.search(r"^RESULT (.*)$", done.stdout, re.M)
        if not found:
            raise CourseError("the bare engine did not run", why=done.stderr[-800:])
        return dict(json.loads(found[1]))

    # The result

    def report(self, wrk: str) -> dict[str, Any]:
        nothing = dict.fromkeys(("tokens_per_s", "p50_ms", "p99_ms", "ttft_p99_ms"))
        made = {name: entry.as_json() for name, entry in self.entries.items()}
        peers = {name: entry for name, entry in made.items() if name not in ("ours", "bare_engine")}
        shares = {task: round(statistics.median(shares), 3) for task, shares in self.client_shares.items()}
        found: dict[str, Any] = {
            "schema": 1,
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "preliminary": not self.plan.tune or self.plan.rounds < 3 or self.load_before > 0.5,
            "machine": {
                "cpu": cpu_name(),
                "architecture": platform.machine(),
                "system": platform.platform(),
                "server_cpus": self.cpus,
                "client_cpus": self.client_cpus,
                "load_average_before": round(self.load_before, 2),
                "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
            },
            "method": {
                "clients": CLIENTS,
                "prompt_tokens": list(workload.PROMPT_TOKENS),
                "new_tokens": workload.NEW_TOKENS,
                "mixed_new_tokens": list(workload.MIXED_TOKENS),
                "rounds": self.plan.rounds,
                "seconds": self.plan.seconds,
                "warm_up_seconds": self.plan.warm_up,
                "tuned": self.plan.tune,
                "orders": self.orders,
            },
            "versions": _versions(),
            "ours": made.get("ours"),
            "bare_engine": made["bare_engine"],
            "peers": peers,
            "load_client": {
                **nothing,
                "why": {"tokens_per_s": "the client makes no tokens"},
                "program": f"wrk {wrk}",
                "stream_program": "stream_client.c" if isinstance(self.stream_client, Path) else None,
                "cpu_share": shares,
            },
        }
        found["goals"] = goals(found)
        jsonschema.validate(found, schema())
        return found


def read(file: Path) -> dict[str, Any]:
    """Figures that were written before.

    Raises:
        CourseError: the file is none of ours.
    """
    try:
        found = json.loads(file.read_text())
        jsonschema.validate(found, schema())
    except (OSError, ValueError, jsonschema.ValidationError) as error:
        why = error.message if isinstance(error, jsonschema.ValidationError) else str(error)
        raise CourseError(f"{file} holds no figures of `course bench serve`", why=why) from None
    return dict(found)


def schema() -> dict[str, Any]:
    """The JSON schema of the figures."""
    return dict(json.loads(resources.files("course_lib.bench").joinpath("serve.schema.json").read_text()))


def _versions() -> dict[str, Any]:
    lock = contestants.LOCK.read_text()
    asked = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=CHECKOUT, capture_output=True, text=True)
    peers = {name: re.search(rf"^{name}==([^\s;\\]+)", lock, re.M) for name in _PEER_PACKAGES}
    return {
        "python": platform.python_version(),
        "course": asked.stdout.strip() or None,
        "ours": {name: importlib.metadata.version(name) for name in _PACKAGES},
        "peers": {name: found[1] for name, found in peers.items() if found},
    }
