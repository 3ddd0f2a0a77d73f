"""A thread that owns a model, and a heartbeat that tells whether the thread still moves."""

import abc
import logging
import threading
import time
from collections import defaultdict

from inference_server.engines import standstill
from inference_server.engines.base import STOPPING, Vitals

log = logging.getLogger("inference_server.engine")
IDLE_SECONDS = 0.5


class EngineLoop(abc.ABC):
    """Runs ``turn()`` again and again on one thread.

    One thread owns the session, so nothing about the model needs a lock. ``self.wake`` guards what other threads hand over. An idle
    loop still turns every half second: a heartbeat that stops means trouble, busy or not. Loops that share their work share ``wake``.
    """

    def __init__(self, name: str, stall_seconds: float, wake: threading.Condition | None = None) -> None:
        self.wake = wake or threading.Condition()
        self.closing = False
        self.batch_sizes: defaultdict[int, int] = defaultdict(int)
        self._stall_seconds = max(stall_seconds, 2 * IDLE_SECONDS)
        self._beat = time.monotonic()
        self._why = ""
        self._end = STOPPING
        self._thread = threading.Thread(target=self._run, name=f"engine-{name}", daemon=True)

    def start(self) -> None:
        """Start the thread; call when the subclass is whole."""
        self._beat = time.monotonic()
        self._thread.start()

    @abc.abstractmethod
    def turn(self) -> bool:
        """One round of work on the loop's thread; False when there was nothing to do."""

    @abc.abstractmethod
    def has_work(self) -> bool:
        """Whether something waits; called with ``self.wake`` held."""

    @abc.abstractmethod
    def abandon(self, why: str) -> None:
        """Give everybody who still waits an error: no turn will come."""

    def load(self) -> tuple[int, int]:
        """(running, waiting) requests."""
        return (0, 0)

    def vitals(self) -> Vitals:
        """Dead, stuck or well."""
        running, waiting = self.load()
        why = self._why
        silent = time.monotonic() - max(self._beat, standstill.look())
        if not why and not self._thread.is_alive():
            why = "the engine's loop is not running"
        if not why and silent > self._stall_seconds:
            why = f"the engine's loop has not moved for {silent:.0f} s"
        return Vitals(why, running, waiting)

    def close(self, why: str = STOPPING) -> None:
        """Ask the thread to end and wait for it, for at most two seconds."""
        self.ask_to_end(why)
        if self._thread.is_alive():
            self._thread.join(timeout=2)

    def ask_to_end(self, why: str) -> None:
        """The first half of ``close``."""
        self._end = why
        with self.wake:
            self.closing = True
            self.wake.notify_all()

    def _run(self) -> None:
        try:
            while not self.closing:
                self._beat = time.monotonic()
                if not self.turn():
                    with self.wake:
                        if not self.closing and not self.has_work():
                            self.wake.wait(IDLE_SECONDS)
        except BaseException as error:
            self._why = f"the engine's loop died: {type(error).__name__}: {error}"
            log.exception("engine loop died")
        finally:
            self.abandon(self._why or self._end)
