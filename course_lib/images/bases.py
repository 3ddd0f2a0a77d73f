"""Base images: from a registry where one answers, else built from the distribution's packages; and which a host can use."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from course_lib import ledger, shell
from course_lib.errors import CourseError
from course_lib.host import packages
from course_lib.images import buildkit, pins
from course_lib.images.engine_client import client
from course_lib.settings import CHECKOUT, settings

Source = Literal["registry", "debian"]

_RECIPE = CHECKOUT / "docker" / "base" / "Dockerfile"
_NO_MANUALS = [f"--dpkgopt=path-exclude=/usr/share/{part}/*" for part in ("man", "doc", "locale", "info")]
#: What a Python suite of a distribution has; others build from their own release.
_DEBIAN_SUITE = "trixie"
_REMEMBER_FOR = 24 * 3600


@dataclass(frozen=True)
class Bases:
    """The two images a build stands on, and where they came from."""

    runtime: str
    builder: str
    source: Source
    why: str
    os: str = ""
    """The image below Python, where this course built it itself."""


def present(reference: str) -> bool:
    """Whether the engine has an image."""
    return shell.succeeds(["docker", "image", "inspect", "--format=1", reference])


def source() -> tuple[Source, str]:
    """Where bases come from on this machine, and why."""
    wanted = settings().images
    if wanted != "auto":
        return wanted, f"IMAGES={wanted}"
    reference = pins.load()["python-slim"].reference
    if present(reference):
        return "registry", f"{reference} is already here"
    remembered = settings().state_dir / "image-source.json"
    if remembered.exists() and time.time() - remembered.stat().st_mtime < _REMEMBER_FOR:
        said = json.loads(remembered.read_text())
        return said["source"], said["why"]
    try:
        pins.resolve(reference, timeout=5)
        found: tuple[Source, str] = ("registry", f"a registry answered for {reference}")
    except CourseError:
        found = ("debian", "no image registry answered within 5 s, so they are built from packages")
    remembered.write_text(json.dumps({"source": found[0], "why": found[1]}))
    return found


def ensure() -> Bases:
    """Makes sure that both Python bases are on this engine; builds or pulls what is missing (they are *kept*).

    Raises:
        CourseError: neither a registry nor packages can give them; says what to do.
    """
    where, why = source()
    if where == "registry":
        table = pins.load()
        runtime, builder = (pull(table[name]) for name in ("python-slim", "python-full"))
        return Bases(runtime, builder, where, why)
    suite = _suite()
    mark = hashlib.sha256(_RECIPE.read_bytes() + " ".join([suite, *_NO_MANUALS]).encode()).hexdigest()[:12]
    os_image = f"course-base/{suite}:{mark}"
    runtime, builder = f"course-base/python-slim:{suite}-{mark}", f"course-base/python-full:{suite}-{mark}"
    if not present(os_image) and not (present(runtime) and present(builder)):
        _bootstrap(suite, os_image)
    for reference, target in ((runtime, "slim"), (builder, "full")):
        if not present(reference):
            buildkit.build(
                _RECIPE.parent,
                file=_RECIPE,
                tag=reference,
                target=target,
                args={"OS_IMAGE": os_image},
                lifetime="kept",
                network="host",
            )
    _retire_older(mark)
    return Bases(runtime, builder, where, why, os_image)


def _retire_older(mark: str) -> None:
    """Takes away what this checkout built from an earlier recipe."""
    for row in ledger.rows(lifetime="kept", checkout=CHECKOUT):
        if row.kind == "image" and row.name.startswith("course-base/") and not row.name.endswith(mark):
            shell.run(["docker", "image", "rm", row.name], show=False, check=False)
            ledger.strike("image", row.name)


def ensure_for_profile() -> Bases:
    """The bases of the inference image: Python's with PROFILE=cpu, NVIDIA NGC's PyTorch with PROFILE=gpu.

    Raises:
        CourseError: NGC's image is neither here nor to be had.
    """
    if settings().profile == "cpu":
        return ensure()
    pin = pins.load()["ngc-pytorch"]
    if settings().ngc_base:
        pin = replace(pin, reference=settings().ngc_base, digest="")
    if not present(pin.pinned):
        shell.announce(f"# PROFILE=gpu: about 10 GB of {pin.reference} will be downloaded, 20 GB unpacked")
    reference = pull(pin)
    return Bases(reference, reference, "registry", "PROFILE=gpu stands on NVIDIA NGC's PyTorch image")


def choices() -> list[dict[str, object]]:
    """The bases a learner chooses among, and which of them this machine has; sizes are the engine's."""
    found = ensure()
    ngc = pins.load()["ngc-pytorch"]
    rows = (
        ("Python slim", found.runtime, "runs the server"),
        ("Python full", found.builder, "builds it"),
        ("NVIDIA NGC PyTorch", ngc.pinned, "PROFILE=gpu"),
    )
    return [
        {"base": what, "image": reference, "used for": use, "MB": _megabytes(reference)}
        for what, reference, use in rows
    ]


def _megabytes(reference: str) -> str:
    if not present(reference):
        return "not here"
    return f"{int(client().images.get(reference).attrs['Size']) / 1e6:,.0f}"


def pull(pin: pins.Pin) -> str:
    """Makes sure that an image of a registry is here (*kept*), and returns its reference."""
    if not present(pin.pinned):
        ledger.write_down("image", pin.pinned, "kept")
        shell.run(
            ["docker", "pull", "--quiet", pin.pinned],
            timeout=1800,
            do="Without a registry, run with IMAGES=debian: the bases are then built from packages.",
        )
    return pin.pinned


def _suite() -> str:
    release = packages.os_release()
    return release["VERSION_CODENAME"] if release.get("ID") == "ubuntu" else _DEBIAN_SUITE


def _bootstrap(suite: str, reference: str) -> None:
    """A minimal system from the distribution's packages, imported as an image (a quarter of a minute)."""
    if not Path("/etc/debian_version").exists():
        raise CourseError(
            "base images can be built from packages on Debian and Ubuntu only",
            do="Let an image registry answer (IMAGES=registry), or run `course images load ARCHIVE` with one that `course images save` wrote on a Linux machine.",
        )
    if shutil.which("mmdebstrap") is None:
        packages.install("mmdebstrap")
    ledger.write_down("image", reference, "kept")
    marks = [
        f"--change=LABEL {key}={value}" for key, value in ledger.labels("kept", "image", reference=reference).items()
    ]
    components = "main,universe" if packages.os_release().get("ID") == "ubuntu" else "main"
    command = ["mmdebstrap", "--quiet", "--variant=minbase", f"--components={components}", *_NO_MANUALS, suite, "-"]
    try:
        shell.pipe(command, ["docker", "import", "--change", 'CMD ["/bin/bash"]', *marks, "-", reference])
    except shell.CommandError as error:
        shell.run(["docker", "image", "rm", reference], show=False, check=False)
        raise CourseError(
            f"the base image could not be built from {suite}'s packages",
            why=error.why,
            do="Check that the package mirror is reachable (`sudo apt-get update`) and that the disk is not full.",
        ) from None
