"""Python environments beside the course's own, for packages that its lock has no room for."""

from __future__ import annotations

import hashlib
import shutil
import sys
from pathlib import Path

from course_lib import shell
from course_lib.settings import CHECKOUT

CACHE = CHECKOUT / ".cache" / "environments"
_WITH_CERTIFICATES = {"UV_SYSTEM_CERTS": "true", "UV_NATIVE_TLS": "true"}


def ensure(name: str, lock: Path, *, compile: bool = False, do: str = "") -> Path:
    """A virtual environment of its own, made from a hashed lock where it is missing; a changed lock gets a new one.

    Args:
        name: whose it is, such as `peers`.
        compile: compile all of it now; else each module when it is first imported.
        do: what a person can do when it can't be made.

    Returns:
        Its folder; programs are in `bin`.

    Raises:
        CourseError: it can't be made.
    """
    folder = CACHE / f"{name}-{hashlib.sha256(lock.read_bytes()).hexdigest()[:8]}"
    stamp = folder / ".complete"
    if stamp.exists():
        return folder
    uv = _uv()
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    shell.run([uv, "venv", "--quiet", "--python", sys.executable, str(folder)], env=_WITH_CERTIFICATES, do=do)
    where = ["--python", str(folder / "bin" / "python"), *(["--compile-bytecode"] if compile else [])]
    shell.run(
        [uv, "pip", "sync", "--quiet", *where, "--require-hashes", str(lock)],
        env=_WITH_CERTIFICATES,
        timeout=1200,
        do=do,
    )
    stamp.touch()
    return folder


def _uv() -> str:
    """The uv that bootstrap.sh used."""
    own = (CHECKOUT / ".cache/uv/bin/uv", CHECKOUT / ".cache/uv-venv/bin/uv")
    return shutil.which("uv") or next((str(path) for path in own if path.exists()), "uv")
