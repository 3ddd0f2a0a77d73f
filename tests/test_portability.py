"""What can't be run on this machine (macOS, arm64, other shells) is at least read: traps of the field as rules."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from course_lib.settings import CHECKOUT


def tracked(*patterns: str) -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", *patterns],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [CHECKOUT / name for name in listed.stdout.splitlines() if (CHECKOUT / name).is_file()]


SHELL_SCRIPTS = [p for p in tracked("*.sh", ".ci/run")]
DOCKERFILES = [p for p in tracked() if "Dockerfile" in p.name and p.suffix != ".dockerignore" and p.suffix != ".py"]
TEXTS = [
    p for p in tracked() if p.suffix in {".py", ".sh", ".md", ".toml", ".yaml", ".yml", ".json", ".j2", ".ipynb", ""}
]


@pytest.mark.parametrize("script", SHELL_SCRIPTS, ids=lambda p: p.name)
def test_shell_scripts_are_clean(script: Path) -> None:
    checker = shutil.which("shellcheck", path=str(Path(sys.executable).parent))
    assert checker, "shellcheck is in the lock"
    done = subprocess.run(
        [checker, "--shell=sh" if "bash" not in script.read_text()[:20] else "--shell=bash", str(script)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout


def test_the_bootstrap_is_posix_sh_only() -> None:
    """macOS's bash is 3.2 and its sed, readlink and mktemp are BSD's: what they lack is not used."""
    text = (CHECKOUT / "bootstrap.sh").read_text()
    for trap in (
        r"\[\[",
        r"readlink -f",
        r"sed -i",
        r"mktemp -d$",
        r"\bdeclare\b",
        r"\$\{[a-z_]+,,\}",
        r"\blocal\b",
        r"grep -P",
        r"date -d",
    ):
        assert not re.search(trap, text), trap


def test_the_makefile_is_one_for_make_3_81() -> None:
    text = (CHECKOUT / "Makefile").read_text()
    for newer in (r"^\.ONESHELL", r"!=", r"\$\(file ", r"::=", r"^\.RECIPEPREFIX", r"\$\(guile"):
        assert not re.search(newer, text, re.M), newer


@pytest.mark.parametrize("path", TEXTS, ids=lambda p: str(p.relative_to(CHECKOUT)))
def test_texts_have_unix_line_ends_and_name_no_machine(path: Path) -> None:
    data = path.read_bytes()
    assert b"\r\n" not in data
    text = data.decode()
    if path.name != "test_portability.py":
        for mirror in (
            "/wor" + "k/",
            "/tmp/bash" + "_jobs",
            "deb.debian." + "org",
            "pypi.org/" + "simple",
            "registry." + "npmjs",
        ):
            assert mirror not in text, f"{path.name} names {mirror}"


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda p: str(p.relative_to(CHECKOUT)))
def test_dockerfiles_avoid_the_traps_of_the_field(path: Path) -> None:
    text = path.read_text()
    instructions = re.sub(r"^\s*#.*\n", "", text, flags=re.M)
    assert not re.search(r"^#\s*syntax\s*=", text, re.M), "BuildKit would fetch its frontend from a registry"
    assert not re.search(r"^FROM\s+\S+:latest", instructions, re.M | re.I), "latest says nothing"
    teaching = "starters" in path.parts or any(part.startswith("wrong-") for part in path.parts)
    if teaching:
        return  # the exercises' flawed starting points and refused answers have these faults on purpose
    assert not re.search(r"HEALTHCHECK[^\n]*(\\\n[^\n]*)*\bcurl\b", instructions), "slim images have no curl"
    assert not re.search(r"useradd[^\n]*\b(-u|--uid)[ =]1000\b", instructions), "1000 is somebody on Ubuntu bases"
    assert "/root/.local" not in instructions, "a non-root user can't read it"
    assert not re.search(r"--platform=linux/amd64", instructions), "a DGX Spark is arm64"
