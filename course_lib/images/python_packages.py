"""The Python packages of an image: are they the locked ones, and do they fit each other?"""

from __future__ import annotations

import json
import re
from importlib import resources
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from course_lib import ledger, reaper, shell
from course_lib.errors import CourseError
from course_lib.images import inspection
from course_lib.images.engine_client import client
from course_lib.lab.steps import record

#: Prints what is installed and the environment that a lock's markers speak of (PEP 508).
_LOOK = """
import json, os, platform, sys
from importlib import metadata
print(json.dumps({
    "installed": {d.metadata["Name"]: d.version for d in metadata.distributions()},
    "environment": {
        "implementation_name": sys.implementation.name, "implementation_version": platform.python_version(),
        "os_name": os.name, "platform_machine": platform.machine(), "platform_python_implementation": "CPython",
        "platform_release": "", "platform_system": platform.system(), "platform_version": "",
        "python_full_version": platform.python_version(),
        "python_version": ".".join(platform.python_version_tuple()[:2]), "sys_platform": sys.platform,
    },
}))
"""


def look(reference: str) -> tuple[dict[str, str], dict[str, str]]:
    """Name and version of each package that the image's Python finds, and that Python's marker environment."""
    said: dict[str, Any] = json.loads(inspection.in_container(reference, _LOOK))
    return {str(canonicalize_name(name)): version for name, version in said["installed"].items()}, said["environment"]


def locked(lock: str, environment: dict[str, str]) -> dict[str, str]:
    """Name and version of each package that a hashed lock installs in an environment."""
    found: dict[str, str] = {}
    for line in re.findall(r"^[A-Za-z0-9][^\\\n#]*", lock, flags=re.M):
        requirement = Requirement(line.strip())
        if requirement.marker is None or requirement.marker.evaluate(environment):
            found[canonicalize_name(requirement.name)] = str(requirement.specifier).removeprefix("==")
    return found


def require_locked(reference: str, lock: Path, base: str) -> dict[str, str]:
    """Reads back that the image holds what the lock says for its platform, version by version.

    What the base brought stays the base's (NGC's packages are built to fit its torch) and is not compared.

    Raises:
        CourseError: a package is missing from the image or has another version.
    """
    have, environment = look(reference)
    of_base, _ = look(base)
    want = {name: version for name, version in locked(lock.read_text(), environment).items() if name not in of_base}
    other = {name: have.get(name, "missing") for name, version in want.items() if have.get(name) != version}
    if other or not want:
        raise CourseError(
            f"{reference} does not hold what {lock.name} locks",
            why="\n".join(f"{n}: {v} in the image, {want[n]} in the lock" for n, v in other.items())
            or "It locks nothing.",
            do="Install from the lock, with --require-hashes.",
        )
    record("image.packages-locked", "docker", reference, packages=len(want), of_the_base=len(of_base), lock=lock.name)
    return {name: have[name] for name in want}


def pip_check(reference: str, base: str) -> None:
    """Runs `pip check` inside a container of the image. The image needs no pip of its own: ours is copied in beside it.

    What the base's own packages already lack (NVIDIA's among themselves, on NGC) is not held against the image.

    Raises:
        CourseError: a requirement of an installed package is missing or has the wrong version.
    """
    complaints = _complaints(reference)
    if complaints:
        complaints -= _complaints(base)
    if complaints:
        raise CourseError(
            f"the packages in {reference} don't fit each other",
            why="\n".join(sorted(complaints)),
            do="Let the resolver choose again (make lock).",
        )
    record("image.pip-check", "docker", reference, said="No broken requirements found.")


def _complaints(reference: str) -> set[str]:
    """The lines in which pip names a requirement that is missing or has the wrong version."""
    name = f"course-pip-check-{ledger.Session.current().pid}"
    ledger.write_down("container", name)
    command = [
        "docker",
        "create",
        "--network=none",
        f"--name={name}",
        *ledger.label_arguments(),
        "--entrypoint=python3",
    ]
    try:
        shell.run(
            [*command, reference, "/tmp/pip", "check", "--disable-pip-version-check", "--no-cache-dir"], show=False
        )
        shell.run(["docker", "cp", str(resources.files("pip")), f"{name}:/tmp/pip"], show=False)
        said = shell.run(["docker", "start", "--attach", name], check=False, timeout=120)
        status = client().api.inspect_container(name)["State"]["ExitCode"]
    finally:
        reaper.dispose("container", name)
    if status == 0:
        return set()
    return set(said.stdout.splitlines()) or {f"pip ended with status {status}: {said.stderr.strip()[-300:]}"}
