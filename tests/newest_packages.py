"""Runs the tests with today's newest packages; when they fail, finds the package that broke them.

Not a test of pytest's: the workflow `newest packages` runs it once a week. It upgrades everything; if the tests then
fail, it halves the changed packages again and again, those of the lock held back, until it has the fewest that break them.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).parent.parent
LOCK = ROOT / "requirements.txt"
TESTS = [sys.executable, "-m", "pytest", "-q", "-x", "-m", "not gpu"]


def uv() -> str:
    """The uv that bootstrap.sh used."""
    found = shutil.which("uv")
    return found or next(str(p) for p in (ROOT / ".cache/uv/bin/uv", ROOT / ".cache/uv-venv/bin/uv") if p.exists())


def versions(lock: str) -> dict[str, str]:
    return dict(re.findall(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", lock, flags=re.M))


def resolve(*upgrade: str) -> str:
    """The lock with everything upgraded, or only what is named."""
    how = [f"--upgrade-package={name}" for name in upgrade] or ["--upgrade"]
    command = [
        uv(),
        "pip",
        "compile",
        "pyproject.toml",
        "--group=dev",
        "--universal",
        "--generate-hashes",
        "--python-version=3.11",
    ]
    done = subprocess.run(
        [*command, "--no-header", "--quiet", *how, "-o", str(LOCK)], cwd=ROOT, capture_output=True, text=True
    )
    if done.returncode != 0:
        said = " ".join(done.stderr.split())
        raise CanNotBeHad(f"{', '.join(upgrade) or 'everything'} in its newest version can't be resolved: {said}")
    return LOCK.read_text()


class CanNotBeHad(Exception):
    """No set of versions fits, or one can't be installed; its text says which."""


def passes() -> bool:
    """Whether the tests pass with what the lock says now."""
    if subprocess.run([str(ROOT / "bootstrap.sh")], check=False).returncode != 0:
        raise CanNotBeHad("the resolved packages can't be installed; bootstrap.sh says why, above")
    return subprocess.run(TESTS, cwd=ROOT, check=False).returncode == 0


def fewest(changed: Sequence[str], breaks: Callable[[Sequence[str]], bool]) -> list[str]:
    """The fewest packages found that break the tests together: about twice log2 of their number of trials for one."""
    needed: list[str] = []
    rest = list(changed)
    while rest and not (needed and breaks(needed)):
        low, high = 1, len(rest)  # the shortest start of the rest that breaks, together with what is needed anyway
        while low < high:
            middle = (low + high) // 2
            if breaks([*needed, *rest[:middle]]):
                high = middle
            else:
                low = middle + 1
        needed.append(rest[low - 1])
        rest = rest[: low - 1]
    return needed


def main() -> int:
    locked = LOCK.read_text()
    before = versions(locked)
    try:
        newest = versions(resolve())
        changed = {
            name: f"{before.get(name, 'none')} -> {version}"
            for name, version in newest.items()
            if before.get(name) != version
        }
        print("\n".join(f"{name}: {change}" for name, change in changed.items()) or "nothing is newer than the lock")
        if passes():
            print("everything passes with the newest packages: `make lock` is safe")
            return 0
        if not changed:
            print("::error::the tests fail with the lock as it is: no newer package is to blame")
            return 1

        def breaks(upgraded: Sequence[str]) -> bool:
            LOCK.write_text(locked)
            resolve(*upgraded)
            return not passes()

        found = fewest(list(changed), breaks)
        print("::error::these break the tests: " + ", ".join(f"{name} {changed[name]}" for name in found))
        return 1
    except CanNotBeHad as why:
        print(f"::error::{why}")
        return 1
    finally:
        LOCK.write_text(locked)
        subprocess.run([str(ROOT / "bootstrap.sh")], check=True)


if __name__ == "__main__":
    sys.exit(main())
