"""Which version answers a request that names none: a split by weight, the same for one user on every replica.

The rule needs no memory and no talk between replicas. A user's place is the first 64 bits of ``sha256("name:user")``; the versions of a
model, in their order, own the range 0 to 2**64 in proportion to their weights. So when weight goes from a lower version to a higher one,
the higher one's part grows downwards and nobody who was in it leaves. Who says no user id gets a random place for each request.

Two forms, both read by ``parse``: the setting TRAFFIC, ``tutor:1=90,tutor:2=10``, whose first version of each model is its default; and the
file TRAFFIC_FILE, ``{"tutor": {"weights": {"1": 90, "2": 10}, "default": "1"}}``, read again when it changes.
"""

import hashlib
import json
import logging
import re
import secrets
import threading
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inference_server.errors import StartError
from inference_server.models import version_key
from inference_server.settings import Settings

log = logging.getLogger("inference_server.traffic")
PLACES = 2**64
LARGEST_WEIGHT = 1_000_000
LARGEST_FILE = 1_000_000
LOOK_SECONDS = 1.0
ITEM = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]{0,99}):([A-Za-z0-9][A-Za-z0-9._-]{0,99})=([0-9]{1,7})")
# Set around each request, so that no contract has to hand the user on to the place where a version is chosen.
_user: ContextVar[bytes | None] = ContextVar("user", default=None)


@dataclass(frozen=True, slots=True)
class Split:
    """One model's versions with their weights; ``default`` answers where the one that is drawn can't."""

    weights: Mapping[str, int]
    default: str

    def version(self, place: int) -> str:
        """The version that owns a place from 0 to 2**64 - 1. Whole numbers throughout, so that all replicas agree to the last bit."""
        total, below = sum(self.weights.values()), 0
        for version in sorted(self.weights, key=version_key):
            below += self.weights[version]
            if place * total < below * PLACES:
                return version
        raise ValueError(f"{place} is not a place")

    def share(self, version: str) -> float:
        """The part of all users that a version gets, 0 to 1."""
        return self.weights.get(version, 0) / sum(self.weights.values())


Traffic = Mapping[str, Split]


def user_is(user: bytes | None) -> None:
    """Note on whose behalf the current request is made, by its header X-User-Id; empty or None: nobody in particular."""
    _user.set(user or None)


def body_user(user: str | None) -> None:
    """The same from a request's body (OpenAI's ``user``), where the header has not said it. Both count as UTF-8."""
    if user and _user.get() is None:
        _user.set(user.encode("utf-8", "backslashreplace"))


def place(name: str) -> int:
    """Where the current request's user stands in the split of model ``name``, 0 to 2**64 - 1."""
    user = _user.get()
    return secrets.randbits(64) if user is None else place_of(name, user)


def place_of(name: str, user: bytes) -> int:
    """The fixed place of one user: a model's name is part of it, or the same people would be first with every canary."""
    return int.from_bytes(hashlib.sha256(name.encode() + b":" + user).digest()[:8], "big")


def read_traffic(settings: Settings) -> Traffic:
    """The split that the settings ask for, empty without any. Raises StartError."""
    if settings.traffic and settings.traffic_file:
        raise StartError("TRAFFIC and TRAFFIC_FILE are both set: leave one out.")
    if settings.traffic_file:
        return parse_file(settings.traffic_file, _content(settings.traffic_file))
    return parse(settings.traffic) if settings.traffic else {}


def parse(text: str) -> Traffic:
    """``name:version=weight`` items, separated by commas, semicolons or spaces. Raises StartError."""
    weights: dict[str, dict[str, int]] = {}
    for item in re.split(r"[,;\s]+", text.strip().strip(",;")):
        match = ITEM.fullmatch(item)
        if not match:
            raise StartError(
                f"TRAFFIC: {item[:100]!r} is not name:version=weight with a whole number from 0 to {LARGEST_WEIGHT:,}, "
                "as in tutor:1=90,tutor:2=10."
            )
        name, version, weight = match[1], match[2], int(match[3])
        if version in weights.setdefault(name, {}):
            raise StartError(f"TRAFFIC names {name}:{version} twice: keep one.")
        weights[name][version] = weight
    return {name: _split("TRAFFIC", name, versions, next(iter(versions))) for name, versions in weights.items()}


def parse_file(where: str, content: bytes | None) -> Traffic:
    """The file's JSON. Raises StartError."""
    source = f"TRAFFIC_FILE={where}"
    if content is None:
        raise StartError(f"{source} can't be read: is it there, and may this user read it?")
    if len(content) > LARGEST_FILE:
        raise StartError(f"{source} is larger than {LARGEST_FILE:,} bytes: that is no traffic split.")
    try:
        value = json.loads(content, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise StartError(f"{source} is not JSON ({error}).") from None
    shape = 'as {"tutor": {"weights": {"1": 90, "2": 10}, "default": "1"}}'
    if not isinstance(value, dict):
        raise StartError(f"{source} has to hold an object, {shape}.")
    traffic = {}
    for name, said in value.items():
        weights = said.get("weights") if isinstance(said, dict) else None
        if not isinstance(weights, dict) or not weights or set(said) - {"weights", "default"}:
            raise StartError(f'{source}: {name!r} has to have "weights" and may have a "default", {shape}.')
        traffic[name] = _split(source, name, weights, said.get("default", next(iter(weights))))
    return traffic


def _split(source: str, name: str, weights: dict[str, Any], default: object) -> Split:
    for version, weight in weights.items():
        if type(weight) is not int or not 0 <= weight <= LARGEST_WEIGHT:
            raise StartError(
                f"{source}: the weight of {name}:{version} has to be a whole number from 0 to {LARGEST_WEIGHT:,}."
            )
    if not any(weights.values()):
        raise StartError(f"{source}: every weight of {name} is 0, so that nobody would answer.")
    if not isinstance(default, str) or default not in weights:
        raise StartError(f"{source}: the default of {name} has to be one of its versions, {', '.join(weights)}.")
    return Split(weights, default)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object in which no key comes twice: the last would win in silence."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key comes twice")
    return found


def _content(where: str) -> bytes | None:
    """The file's bytes, one more than may be at most; None when it can't be read."""
    try:
        with Path(where).open("rb") as file:
            return file.read(LARGEST_FILE + 1)
    except OSError:
        return None


class TrafficFile:
    """Looks at TRAFFIC_FILE each second, on a thread of its own: a mounted file system may make a reader wait.

    It compares the content, not times, so that a swapped symlink (which is how Kubernetes renews a mounted ConfigMap) is a change like
    any other. What is wrong with a new content is said once; the old split stays.

    Args:
        where: path of the file.
        changed: called on the thread with the new split; may raise StartError to refuse it.
        refused: called on the thread for each content that is refused.
    """

    def __init__(self, where: str, changed: Callable[[Traffic], None], refused: Callable[[], None]) -> None:
        self._where = where
        self._changed = changed
        self._refused = refused
        self._seen: bytes | None = b""  # never equal to a good file: the first look takes what came since the start
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="traffic", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Stop looking; does not wait."""
        self._stop.set()

    def look(self) -> None:
        """Take a changed file in."""
        content = _content(self._where)
        if content == self._seen:
            return
        self._seen = content
        try:
            self._changed(parse_file(self._where, content))
        except StartError as error:
            self._refused()
            log.error("traffic stays as it was", extra={"fields": {"reason": str(error)}})

    def _run(self) -> None:
        while not self._stop.is_set():
            self.look()
            self._stop.wait(LOOK_SECONDS)
