"""API keys: read from a file or the environment, compared in constant time, never written anywhere."""

import hashlib
import hmac
import logging
import os
import re
import threading
from contextlib import suppress
from pathlib import Path

from inference_server.errors import RequestError, StartError

log = logging.getLogger("inference_server")
# A key has to fit in a header; a name is what logs and fair shares know a client by.
KEY = re.compile(r"[\x21-\x7e]{8,512}")
NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")


class Keys:
    """The keys that open this server. None at all: it is open.

    Args:
        given: API_KEYS, keys with commas between them.
        file: API_KEYS_FILE, one key a line, ``#`` for comments. It is read again when it has changed, a mounted Kubernetes Secret too,
            whose change is that of a symbolic link.

    Each may have ``name:`` before it, and is ``key-1``, ``key-2`` … otherwise. Raises StartError.
    """

    def __init__(self, given: str = "", file: str = "") -> None:
        self._given = _parse(given.split(","), "API_KEYS") if given else {}
        if given and not self._given:
            raise StartError("API_KEYS holds no key: write one, or leave it out.")
        self._file = Path(file) if file else None
        self._stamp: tuple[int, ...] | None = None
        self._keys = self._given
        self._lock = threading.Lock()
        if self._file:
            self._stamp = self._look()
            if self._stamp is None:
                raise StartError(f"API_KEYS_FILE={file} can't be read: give a file that this user may read.")
            self._keys = self._with_file()
            if not self._keys:
                raise StartError(f"API_KEYS_FILE={file} holds no key: write one key a line.")

    @property
    def wanted(self) -> bool:
        """Whether a request needs a key."""
        return self._file is not None or bool(self._given)

    def name_of(self, key: bytes) -> str | None:
        """The name of a key that opens this server, else None. Every key is compared, whichever it is."""
        self._refresh()
        digest = hashlib.sha256(key).digest()
        found = None
        for known, name in self._keys.items():
            if hmac.compare_digest(known, digest):
                found = name
        return found

    def owner(self, headers: dict[bytes, bytes]) -> str:
        """The name of the key that a request brings. Raises RequestError 401."""
        key = bearer(headers)
        name = self.name_of(key) if key else None
        if name is None:
            said = "This API key is not known here" if key else "This server wants an API key"
            raise RequestError(401, f"{said}: send one as `Authorization: Bearer KEY`.", "invalid_api_key")
        return name

    def _refresh(self) -> None:
        """Read the file again if it is another one now; while it can't be read or is wrong, the keys of before go on."""
        found = self._look()
        if found is None or found == self._stamp:
            return
        with self._lock:
            self._stamp = found
            try:
                self._keys = self._with_file()
            except StartError as error:
                log.error("API keys not read again", extra={"fields": {"reason": str(error)}})
            else:
                log.info("API keys read again", extra={"fields": {"keys": len(self._keys)}})

    def _look(self) -> tuple[int, ...] | None:
        with suppress(OSError):
            return stamp(self._file) if self._file else None
        return None

    def _with_file(self) -> dict[bytes, str]:
        assert self._file
        try:
            lines = self._file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else "it is not UTF-8"
            raise StartError(f"API_KEYS_FILE={self._file} can't be read: {reason}.") from None
        return {**self._given, **_parse(lines, f"API_KEYS_FILE={self._file}")}


def stamp(file: Path) -> tuple[int, ...]:
    """What changes when a file does, or when a link on the way to it leads elsewhere. Raises OSError."""
    about = file.stat()
    return about.st_mtime_ns, about.st_size, about.st_ino, about.st_dev


def bearer(headers: dict[bytes, bytes]) -> bytes | None:
    """The key a request brings: ``Authorization: Bearer KEY``, or ``x-api-key: KEY``."""
    scheme, _, key = headers.get(b"authorization", b"").strip().partition(b" ")
    return (key.strip() if scheme.lower() == b"bearer" else b"") or headers.get(b"x-api-key", b"").strip() or None


def _parse(lines: list[str], where: str) -> dict[bytes, str]:
    """Digest to name. Raises StartError with the number of the line, never with what it says."""
    keys: dict[bytes, str] = {}
    entries = [(number, line.strip()) for number, line in enumerate(lines, 1)]
    for number, line in entries:
        if not line or line.startswith("#"):
            continue
        name, colon, key = line.partition(":")
        name, key = (name.strip(), key.strip()) if colon else (f"key-{len(keys) + 1}", line)
        if not NAME.fullmatch(name) or not KEY.fullmatch(key):
            raise StartError(
                f"{where}: entry {number} is no key: write 8 to 512 visible ASCII characters, with `name:` before them if you like."
            )
        digest = hashlib.sha256(key.encode()).digest()
        if digest in keys or name in keys.values():
            raise StartError(f"{where}: entry {number} repeats a key or a name: each may stand there once.")
        keys[digest] = name
    return keys
