"""A circuit breaker: a server that keeps failing is left in peace, instead of making every client wait for it.

After Nygard, Release It! (2007). Closed while all is well; open after several failures in a row, when nobody may ask; half open once the
server shows itself again, when one request may try: its fate decides.
"""

import time


class Breaker:
    """Counts failures; not locked, one event loop owns it."""

    FAILURES = 5
    OPEN_SECONDS = 1.0
    LONGEST_OPEN = 30.0

    def __init__(self) -> None:
        self._failures = 0
        self._opened = 0  # times since it last was closed
        self._until = 0.0
        self._half = False
        self._trying = False

    @property
    def open(self) -> bool:
        """Whether nobody may ask."""
        return bool(self._opened) and not self._half

    @property
    def seconds(self) -> float:
        """How long it stays open at least; 0 when that is over."""
        return max(0.0, self._until - time.monotonic())

    def enter(self) -> bool:
        """Whether a request may go now."""
        if self.open or self._trying:
            return False
        self._trying = self._half
        return True

    def succeeded(self) -> None:
        """The server answered: it is there."""
        self._failures = self._opened = 0
        self._half = self._trying = False

    def failed(self) -> None:
        """The server did not answer, or failed."""
        self._failures += 1
        if not self.open and (self._half or self._failures >= self.FAILURES):
            self._until = time.monotonic() + min(self.OPEN_SECONDS * 2.0**self._opened, self.LONGEST_OPEN)
            self._opened = min(self._opened + 1, 10)
            self._half = self._trying = False

    def left(self) -> None:
        """A request ended before it was known how the server is."""
        self._trying = False

    def shown(self) -> None:
        """The server showed itself again: one request may try."""
        self._half = True
