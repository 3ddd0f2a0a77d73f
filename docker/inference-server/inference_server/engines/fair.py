"""Who is next: waiting work by client, so that one with 200 requests can't starve another with one.

Start-time fair queueing (Goyal, Vin and Cheng 1996) over tokens: the client that was given the fewest is served next, and one that comes
back after a pause starts where the others are now, so that nobody saves up. A client is charged for the longest answer it may get when
its work begins, and gets back what it did not use when it ends.
"""

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

MANY_ACCOUNTS = 256  # then those who owe nothing are forgotten
LONGEST_WAIT = 60


class Work(Protocol):
    """What waits: for whom, and the most tokens it can take."""

    client: str
    cost: int


Item = TypeVar("Item", bound=Work)


@dataclass(slots=True)
class _Account(Generic[Item]):
    given: float
    running: int = 0
    waiting: deque[Item] = field(default_factory=deque)


class FairQueue(Generic[Item]):
    """Waiting work of all clients; not locked, its owner is."""

    def __init__(self) -> None:
        self._accounts: dict[str, _Account[Item]] = {}
        self._virtual = 0.0  # what those who were served lately had been given before
        self._size = 0
        self._running = 0

    def __len__(self) -> int:
        return self._size

    def push(self, item: Item) -> None:
        """Add at the end of its client's line."""
        account = self._accounts.get(item.client)
        if account is None:
            if len(self._accounts) >= MANY_ACCOUNTS:
                self._forget()
            account = self._accounts[item.client] = _Account(self._virtual)
        elif not account.waiting:
            account.given = max(account.given, self._virtual)
        account.waiting.append(item)
        self._size += 1

    def pop(self) -> Item | None:
        """The first in line of the client that was given least; it counts as running until ``done``."""
        lines = [account for account in self._accounts.values() if account.waiting]
        if not lines:
            return None
        account = min(lines, key=lambda each: each.given)
        self._virtual = max(self._virtual, account.given)
        return self._take(account)

    def pop_after(self, item: Item, fits: Callable[[Item], bool]) -> Item | None:
        """The next in line of the same client, if it ``fits``: work that is best done together with ``item``."""
        account = self._accounts.get(item.client)
        return self._take(account) if account and account.waiting and fits(account.waiting[0]) else None

    def done(self, item: Item, used: int) -> None:
        """What ``pop`` gave is over and took ``used`` tokens."""
        account = self._accounts.get(item.client)
        if account is None:
            return  # everything was cleared meanwhile
        account.given -= item.cost - used
        account.running -= 1
        self._running -= 1
        if not self._running and not self._size:
            self._accounts.clear()
            self._virtual = 0.0

    def drop(self, client: str, left: set[Item]) -> list[Item]:
        """Take these out of the client's line: nobody waits for them any more. Returns those that waited."""
        account = self._accounts.get(client)
        if account is None:
            return []
        dropped = [item for item in account.waiting if item in left]
        account.waiting = deque(item for item in account.waiting if item not in left)
        self._size -= len(dropped)
        return dropped

    def crowder(self, client: str, more: int) -> Item | None:
        """With the queue full: the newest work of the client with the longest line, if that line is longer than this client's would be."""
        line = self._line(client) + more
        longest = max((account.waiting for account in self._accounts.values()), key=len, default=None)
        return longest[-1] if longest and len(longest) > line else None

    def ahead(self, client: str) -> int:
        """Most places that can come before the next work of this client: its own, and as many of everybody else's."""
        own = self._line(client) + 1
        others = (len(account.waiting) for name, account in self._accounts.items() if name != client)
        return own - 1 + sum(min(own, line) for line in others)

    def clear(self) -> list[Item]:
        """Empty it; returns what waited."""
        left = [item for account in self._accounts.values() for item in account.waiting]
        self._accounts.clear()
        self._size = self._running = 0
        return left

    def _take(self, account: _Account[Item]) -> Item:
        item = account.waiting.popleft()
        self._size -= 1
        self._running += 1
        account.given += item.cost
        account.running += 1
        return item

    def _line(self, client: str) -> int:
        account = self._accounts.get(client)
        return len(account.waiting) if account else 0

    def _forget(self) -> None:
        for name, account in list(self._accounts.items()):
            if not account.waiting and not account.running and account.given <= self._virtual:
                del self._accounts[name]


class Pace:
    """How fast work gets done, from when the latest pieces ended."""

    def __init__(self) -> None:
        self._ends: deque[float] = deque(maxlen=64)

    def ended(self, now: float) -> None:
        """One more piece of work is over, at ``now`` (monotonic seconds)."""
        self._ends.append(now)

    def rest(self) -> None:
        """Nothing runs: the pause that follows is no slowness."""
        self._ends.clear()

    def seconds(self, pieces: int, now: float) -> int:
        """Whole seconds until ``pieces`` more are done, 1 to 60; 1 while nothing is known."""
        ends = list(self._ends)
        if len(ends) < 2 or now <= ends[0]:
            return 1
        return max(1, min(LONGEST_WAIT, math.ceil(pieces * (now - ends[0]) / (len(ends) - 1))))
