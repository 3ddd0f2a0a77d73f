"""`make test`: runs the suites in two lanes side by side, because most of them wait for containers most of the time.

Not a test of pytest's. What both lanes want is made first, once: images are built by one process while nobody else asks for
them. Each suite's output is printed whole when it ends, and the errors of those that failed again at the very end. Every minute a
line says how far each one is. Ctrl-C ends all of them.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
SERVICES = ("inference-server", "rag-service", "trace-receiver")


@dataclass(frozen=True)
class Suite:
    """One run of pytest."""

    name: str
    arguments: tuple[str, ...]

    @property
    def command(self) -> list[str]:
        return [sys.executable, "-m", "pytest", "-q", "--durations=12", *self.arguments]


def service(name: str) -> Suite:
    folder = f"docker/{name}"
    return Suite(folder, ("-c", f"{folder}/pyproject.toml", "--rootdir", folder, f"{folder}/tests"))


#: What takes the processor, beside what waits. Whole labs are one suite: two at a time would be no lab's usual machine. What
#: shares a cluster is one, too: a cluster takes a part of a processor as long as it is there.
CLUSTERS = ("tests/cluster", "tests/k8s")
LANES = (
    (*map(service, SERVICES), Suite("labs", ("tests/labs",))),
    (
        Suite("clusters", CLUSTERS),
        Suite("course", ("tests", "--ignore=tests/labs", *(f"--ignore={folder}" for folder in CLUSTERS))),
    ),
)


@dataclass(frozen=True)
class Ended:
    name: str
    status: int
    seconds: float
    said: str


def _failures(said: str) -> str:
    """Of pytest's output what a person needs to know: the errors' own lines, and the tests' names."""
    wanted = re.compile(r"E  |_{3,} .* _{3,}$|FAILED |ERROR ")
    return "\n".join(line[:300] for line in said.splitlines() if wanted.match(line)) or said[-3000:]


class Lanes:
    """Runs them, and keeps what became of each suite."""

    def __init__(self, options: list[str]) -> None:
        self._options = options
        self._running: dict[str, subprocess.Popen[str]] = {}
        self._far: dict[str, str] = {}
        self._talking = threading.Lock()
        self.ended: list[Ended] = []

    def run(self) -> int:
        """The status to end with: 0 where each suite passed."""
        threads = [threading.Thread(target=self._lane, args=(lane,), daemon=True) for lane in LANES]
        for thread in threads:
            thread.start()
        try:
            self._watch(threads)
        except KeyboardInterrupt:
            running = list(self._running.values())
            for process in running:
                os.killpg(process.pid, signal.SIGINT)  # pytest takes its fixtures down
            for process in running:
                process.wait(120)
            return 130
        for one in self.ended:
            if one.status:
                print(f"\n===== {one.name}: what failed =====\n{_failures(one.said)}")
        for one in self.ended:
            print(f"{'passed' if one.status == 0 else 'FAILED'}  {one.name:<26} {one.seconds / 60:5.1f} min")
        return int(any(one.status for one in self.ended) or len(self.ended) != sum(map(len, LANES)))

    def _watch(self, threads: list[threading.Thread]) -> None:
        began = said = time.monotonic()
        while any(thread.is_alive() for thread in threads):
            for thread in threads:
                thread.join(0.5)
            if time.monotonic() - said >= 60:
                said = time.monotonic()
                how = ", ".join(f"{name} {self._far.get(name, '')}" for name in self._running)
                with self._talking:
                    print(f"{(said - began) / 60:3.0f} min: {how}", flush=True)

    def _lane(self, suites: tuple[Suite, ...]) -> None:
        for suite in suites:
            began = time.monotonic()
            process = subprocess.Popen(
                [*suite.command, *self._options],
                cwd=CHECKOUT,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                start_new_session=True,
            )
            self._running[suite.name] = process
            said = []
            for line in process.stdout or ():
                said.append(line)
                if found := re.search(r"\[ *(\d+%)\]$", line.rstrip()):
                    self._far[suite.name] = found[1]
            process.wait()
            del self._running[suite.name]
            ended = Ended(suite.name, process.returncode, time.monotonic() - began, "".join(said))
            self.ended.append(ended)
            with self._talking:
                print(f"\n===== {ended.name} =====\n{ended.said}", flush=True)


if __name__ == "__main__":
    sys.exit(Lanes(sys.argv[1:]).run())
