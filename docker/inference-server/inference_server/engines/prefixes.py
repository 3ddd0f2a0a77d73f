"""Prompts that begin alike are computed once: keys and values of earlier prompts, found by the tokens they begin with.

After the automatic prefix caching of vLLM (https://docs.vllm.ai/en/latest/design/prefix_caching.html): only whole blocks of tokens are
found again, and what was used least lately goes first. Each owner has prompts of its own: how fast an answer begins would tell one whether
another has asked the same.
"""

import threading
from collections import OrderedDict
from typing import Any, NamedTuple

BLOCK = 32  # tokens; below that computing is as fast as looking up


Key = tuple[str, tuple[int, ...]]


class _Kept(NamedTuple):
    owner: str
    ids: tuple[int, ...]
    state: Any
    size: int


class PrefixCache:
    """Shared by the instances of one model; what it holds is never written to again.

    Args:
        limit: bytes that it may take; 0 keeps nothing.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._kept: OrderedDict[Key, _Kept] = OrderedDict()  # least lately used first
        # every beginning of whole blocks to the newest prompt that has it
        self._begins: dict[Key, _Kept] = {}
        self._bytes = 0

    def find(self, owner: str, ids: list[int]) -> tuple[int, Any]:
        """(tokens that another prompt begins with too, the state that holds them); the last token is never among them, as somebody has
        to ask for what follows it."""
        with self._lock:
            for blocks in range((len(ids) - 1) // BLOCK, 0, -1):
                found = self._begins.get((owner, tuple(ids[: blocks * BLOCK])))
                if found:
                    self._kept.move_to_end((owner, found.ids))
                    return blocks * BLOCK, found.state
        return 0, None

    def wants(self, owner: str, ids: list[int]) -> int:
        """How many tokens of a prompt are worth keeping: its whole blocks, if nothing holds them yet."""
        size = len(ids) // BLOCK * BLOCK
        with self._lock:
            return size if self._limit and size and (owner, tuple(ids[:size])) not in self._begins else 0

    def keep(self, owner: str, ids: list[int], state: Any, size: int) -> None:
        """Remember the state after these tokens, which are whole blocks and take ``size`` bytes."""
        if size > self._limit:
            return
        made = _Kept(owner, tuple(ids), state, size)
        with self._lock:
            for end in range(BLOCK, len(ids) + 1, BLOCK):
                if shorter := self._kept.pop((owner, made.ids[:end]), None):  # which this one holds as well
                    self._forget(shorter)
                self._begins[owner, made.ids[:end]] = made
            self._kept[owner, made.ids] = made
            self._bytes += size
            while self._bytes > self._limit:
                self._forget(self._kept.popitem(last=False)[1])

    def _forget(self, old: _Kept) -> None:
        self._bytes -= old.size
        for end in range(BLOCK, len(old.ids) + 1, BLOCK):
            if self._begins.get((old.owner, old.ids[:end])) is old:
                del self._begins[old.owner, old.ids[:end]]
