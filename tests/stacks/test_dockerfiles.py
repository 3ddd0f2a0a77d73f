"""Every Dockerfile of the course keeps the rules: hadolint's, and a few that it does not know."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from course_lib.settings import CHECKOUT

DOCKER = CHECKOUT / "docker"
FILES = sorted(DOCKER.rglob("*Dockerfile"))

#: What breaks a rule on purpose: (file, rule): why.
ON_PURPOSE = {
    ("inference-server/naive.Dockerfile", "DL3042"): "the `before` of lab 4.4.1 does what one does first",
    ("inference-server/naive.Dockerfile", "user"): "likewise",
    ("base/Dockerfile", "user"): "a base: what stands on it says who runs it",
    ("base/registry.Dockerfile", "user"): "the Debian package makes its user, with a number of the day",
    ("base/registry.Dockerfile", "DL3066"): "likewise",
}

BAD = """\
# syntax=docker/dockerfile:1
FROM debian:latest AS below
RUN apt-get update && apt-get install -y --no-install-recommends wget
FROM below
RUN useradd --uid 1000 somebody
ADD https://example.org/model.bin /model.bin
HEALTHCHECK CMD curl --fail http://127.0.0.1:8080/ping
USER somebody
"""


def hadolint(path: Path) -> set[str]:
    """The rules that hadolint finds broken."""
    # DL3008: Debian keeps one version of a package at a time, and a pinned one is gone after the next security update.
    command = [
        str(Path(sys.executable).parent / "hadolint"),
        "--no-fail",
        "--format=json",
        "--ignore=DL3008",
        str(path),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=path.parent)
    assert done.returncode == 0, done.stdout + done.stderr
    return {one["code"] for one in json.loads(done.stdout)}


def ours(path: Path) -> set[str]:
    """The rules of our own that are broken."""
    text = path.read_text()
    lines = re.sub(r"\\\n", " ", re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE)).splitlines()
    instructions = [(word.upper(), rest) for word, _, rest in (line.partition(" ") for line in lines)]
    last_stage = max(n for n, (word, _) in enumerate(instructions) if word == "FROM")
    users = [rest.strip() for word, rest in instructions[last_stage:] if word == "USER"]
    broken = {
        # a number is the same on every base, and an orchestrator can see that it is not root's
        "user": not users or not re.fullmatch(r"[1-9]\d*:[1-9]\d*", users[-1]),
        "1000": re.search(r"(useradd|adduser)[^&|;]*\b1000\b", text),  # already somebody on some bases
        "probe": any(word == "HEALTHCHECK" and re.search(r"\b(curl|wget)\b", rest) for word, rest in instructions),
        "add": any(word == "ADD" for word, _ in instructions),  # what comes from an address is not checked
        "syntax": text.startswith("# syntax="),  # BuildKit would fetch its own frontend from a registry
    }
    return {rule for rule, found in broken.items() if found}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(DOCKER)))
def test_a_dockerfile_keeps_the_rules(path: Path) -> None:
    allowed = {rule for name, rule in ON_PURPOSE if DOCKER / name == path}
    assert hadolint(path) | ours(path) == allowed


def test_the_rules_notice(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(BAD)
    assert hadolint(tmp_path / "Dockerfile") >= {"DL3007", "DL3009"}
    assert ours(tmp_path / "Dockerfile") == {"user", "1000", "probe", "add", "syntax"}


def test_every_stage_of_the_stack_that_runs_has_a_user() -> None:
    """Its stages are targets, one a service; nginx' number is the registry image's."""
    stages = (DOCKER / "stack" / "debian.Dockerfile").read_text().split("\nFROM ")[2:]
    users = {stage.splitlines()[0].split(" AS ")[1]: re.findall(r"^USER (\d+:\d+)$", stage, re.M) for stage in stages}
    assert len(users) == 6 and all(len(found) == 1 and found != ["0:0"] for found in users.values()), users
