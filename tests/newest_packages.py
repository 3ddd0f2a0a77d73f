"""Runs the tests with today's newest packages; when they fail, finds the package that broke them.

Not a test of pytest's: the workflow `newest packages` runs it once a week. It upgrades everything; if the tests then
fail, it goes back to the lock and upgrades one direct requirement after the other until one alone makes them fail.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
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
    subprocess.run([*command, "--no-header", "--quiet", *how, "-o", str(LOCK)], cwd=ROOT, check=True)
    return LOCK.read_text()


def passes() -> bool:
    subprocess.run([str(ROOT / "bootstrap.sh")], check=True)
    return subprocess.run(TESTS, cwd=ROOT, check=False).returncode == 0


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
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())
        named = [*project["project"]["dependencies"], *project["dependency-groups"]["dev"]]
        direct = [re.split(r"[\[<>=~! ]", one, maxsplit=1)[0] for one in named]
        for name in (one for one in direct if one.lower() in changed):
            LOCK.write_text(locked)
            resolve(name)
            if not passes():
                print(f"::error::{name} {changed[name.lower()]} breaks the tests")
                return 1
        print("::error::no single package breaks the tests, several together do; the list above says what changed")
        return 1
    finally:
        LOCK.write_text(locked)
        subprocess.run([str(ROOT / "bootstrap.sh")], check=True)


if __name__ == "__main__":
    sys.exit(main())
