"""What an autoscaler does while the load changes: sampled in the background, twice a second."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from types import TracebackType

import pandas as pd

from course_lib import waits
from course_lib.cluster import autoscaling, rollout
from course_lib.cluster.deployer import Deployer
from course_lib.errors import CourseError
from course_lib.lab.steps import record


@dataclass(frozen=True)
class Moment:
    """A Deployment and its autoscaler at a time."""

    at: float
    """Seconds since the timeline began."""
    cpu: int | None
    """Percent of the requested CPU, the mean over the pods, as the autoscaler last measured it."""
    target: int
    desired: int
    replicas: int
    ready: int


class Timeline:
    """Samples a Deployment and its autoscaler from entering the block until leaving it.

    Args:
        every: seconds between two samples.
    """

    def __init__(self, deployer: Deployer, name: str, *, every: float = 0.5) -> None:
        self._api, self._namespace, self.name, self._every = deployer.api, deployer.namespace, name, every
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._moments: list[Moment] = []
        self._failed: CourseError | None = None
        self.started = 0.0
        """`time.monotonic()` of its beginning, to lay a load beside it."""

    def __enter__(self) -> Timeline:
        self.started = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, *what: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._stop.set()
        self._thread.join(30)

    @property
    def moments(self) -> list[Moment]:
        """What was seen so far."""
        return list(self._moments)

    def frame(self) -> pd.DataFrame:
        """One row a sample: at, cpu, target, desired, replicas, ready."""
        return pd.DataFrame([asdict(one) for one in self._moments])

    def require_scaled_up(self, to_at_least: int, *, timeout: float = 240) -> float:
        """Waits until so many replicas are wanted by the autoscaler, and ready; returns after how many seconds.

        Raises:
            CourseError: they are not in time, or were there from the beginning.
        """
        first = self._until(lambda one: True, "a first look", 120)
        if first.ready >= to_at_least:
            raise CourseError(
                f"{self.name} had {first.ready} replicas already", do="Scale it down before the load comes."
            )
        moment = self._until(lambda one: one.desired >= to_at_least and one.ready >= to_at_least, f"{to_at_least} replicas or more", timeout)  # fmt: skip
        record("hpa.scaled-up", "kubernetes", self.name, seconds=round(moment.at, 1), cpu=moment.cpu, target=moment.target, desired=moment.desired, ready=moment.ready)  # fmt: skip
        return moment.at

    def require_scaled_down(self, to: int, *, timeout: float = 400) -> float:
        """Waits until the autoscaler wants so many replicas again, and no more are there; returns after how many seconds.

        Raises:
            CourseError: more are there when time is up, or there were never more.
        """
        most = max((one.ready for one in self._moments), default=0)
        if most <= to:
            raise CourseError(f"there were never more than {to} replicas", do="Bring load first.")
        moment = self._until(lambda one: one.desired == to and one.replicas == to, f"{to} replicas again", timeout)
        record("hpa.scaled-down", "kubernetes", self.name, seconds=round(moment.at, 1), most=most, desired=moment.desired, replicas=moment.replicas)  # fmt: skip
        return moment.at

    def _until(self, fits: Callable[[Moment], bool], what: str, timeout: float) -> Moment:
        def probe() -> Moment:
            if self._failed:
                raise self._failed
            last = self._moments[-1] if self._moments else None
            if last is None or not fits(last):
                raise waits.NotYet(str(last))
            return last

        return waits.until(
            probe, what=f"{what} of {self.name}", timeout=timeout, every=0.2,
            do="`kubectl describe hpa` says what the autoscaler sees: no figures, or too little load?",
        )  # fmt: skip

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._moments.append(self._look())
            except CourseError as error:
                # One answer that is missing is no end: the API server is busy, too, under load.
                if len(self._moments) == 0 and time.monotonic() - self.started > 90:
                    self._failed = error
                    return
            self._stop.wait(self._every)

    def _look(self) -> Moment:
        scaler = autoscaling.read(self._api, self._namespace, self.name)
        status = rollout.status(self._api.get("apps/v1", "Deployment", self.name, self._namespace))
        return Moment(
            at=time.monotonic() - self.started, cpu=scaler.used.get("cpu"), target=scaler.targets.get("cpu", 0),
            desired=scaler.desired, replicas=status.total, ready=status.ready,
        )  # fmt: skip
