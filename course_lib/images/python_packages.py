"""The Python packages of an image: are they the locked ones, and do they fit each other?"""

from __future__ import annotations

import json
import re
from importlib import resources
from pathlib import Path

from course_lib import ledger, shell
from course_lib.errors import CourseError
from course_lib.images import inspection
from course_lib.lab import record

_LIST = """
import json
from importlib import metadata
print(json.dumps({d.metadata["Name"]: d.version for d in metadata.distributions()}))
"""


def installed(reference: str) -> dict[str, str]:
    """Name and version of each package that the image's Python finds."""
    found: dict[str, str] = json.loads(inspection.in_container(reference, _LIST))
    return {_normalised(name): version for name, version in found.items()}


def locked(lock: Path) -> dict[str, str]:
    """Name and version of each package that a lock would install anywhere; markers are not evaluated."""
    pairs = re.findall(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^\s;\\]+)", lock.read_text(), flags=re.M)
    return {_normalised(name): version for name, version in pairs}


def require_locked(reference: str, lock: Path) -> dict[str, str]:
    """Reads back that the image's packages are the lock's, version by version.

    Raises:
        CourseError: one is missing from the image or has another version.
    """
    want, have = locked(lock), installed(reference)
    other = {n: have[n] for n in want if n in have and have[n] != want[n]}
    if other or not have.keys() & want.keys():
        raise CourseError(
            f"{reference} does not hold what {lock.name} locks",
            why="\n".join(f"{n}: {v} in the image, {want[n]} in the lock" for n, v in other.items())
            or "None of its packages is there.",
            do="Install from the lock, with --require-hashes.",
        )
    ours = {n: v for n, v in have.items() if n in want}
    record("image.packages-locked", "docker", reference, packages=len(ours), lock=lock.name)
    return ours


def pip_check(reference: str) -> None:
    """Runs `pip check` inside a container of the image. The image needs no pip of its own: ours is copied in beside it.

    Raises:
        CourseError: a requirement of an installed package is missing or has the wrong version.
    """
    name = f"course-pip-check-{ledger.Session.current().pid}"
    ledger.write_down("container", name)
    try:
        shell.run(
            ["docker", "create", "--network=none", f"--name={name}", *ledger.label_arguments(), "--entrypoint=python3", reference,
             "/tmp/pip", "check", "--disable-pip-version-check"], show=False)  # fmt: skip
        shell.run(["docker", "cp", str(resources.files("pip")), f"{name}:/tmp/pip"], show=False)
        said = shell.run(
            ["docker", "start", "--attach", name], do="Let the resolver choose again (make lock).", timeout=120
        )
    finally:
        shell.run(["docker", "rm", "--force", name], show=False, check=False)
        ledger.strike("container", name)
    record("image.pip-check", "docker", reference, said=said.output)


def _normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
