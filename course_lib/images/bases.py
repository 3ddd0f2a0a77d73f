"""Base images: from a registry where one answers, else built from the distribution's packages; and which a host can use."""

from __future__ import annotations

import hashlib
import json
import os
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
#: Seconds: a registry that answered will answer tomorrow; one that did not may do so when the network is back.
_REMEMBER: dict[Source, float] = {"registry": 24 * 3600, "debian": 300}


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
    """Where bases come from on this machine, and why.

    Raises:
        CourseError: no registry answers, and this system has no packages to build them from.
    """
    wanted = settings().images
    if wanted != "auto":
        return wanted, f"IMAGES={wanted}"
    pin = pins.load()["python-slim"]
    if at_hand(pin):
        return "registry", f"{pin.reference} is already here"
    if suite := _built_suite():
        return "debian", f"those built from {suite}'s packages are already here"
    remembered = settings().state_dir / "image-source.json"
    if known := _remembered(remembered):
        return known
    try:
        pins.resolve(pin.reference, timeout=5)
        found: tuple[Source, str] = ("registry", f"a registry answered for {pin.reference}")
    except CourseError as error:
        if not _has_packages():
            raise CourseError(
                f"no image registry gave {pin.reference} within 5 s, and this system has no packages to build it from",
                why=error.why,
                do="Check the network and that Docker runs, or run `course images load ARCHIVE` with one that `course images save` wrote.",
            ) from None
        found = ("debian", "no image registry answered within 5 s, so they are built from packages")
    remembered.write_text(json.dumps({"source": found[0], "why": found[1]}))
    return found


def _remembered(file: Path) -> tuple[Source, str] | None:
    """The last answer, while it is fresh; a file that can't be read is none."""
    try:
        age, said = time.time() - file.stat().st_mtime, json.loads(file.read_text())
        where, why = said["source"], str(said["why"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if where not in _REMEMBER or age > _REMEMBER[where] or (where == "debian" and not _has_packages()):
        return None
    return where, why


def _has_packages() -> bool:
    return Path("/etc/debian_version").exists()


def at_hand(pin: pins.Pin) -> str:
    """The reference under which a registry's image is on this engine: pulled, or loaded from an archive; else empty."""
    return next((reference for reference in (pin.pinned, pin.carried) if present(reference)), "")


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
    suite = _built_suite() or _suite()
    mark = _mark(suite)
    os_image, runtime, builder = _names(suite)
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


def _mark(suite: str) -> str:
    """What tells a recipe's images from those of an earlier one."""
    return hashlib.sha256(_RECIPE.read_bytes() + " ".join([suite, *_NO_MANUALS]).encode()).hexdigest()[:12]


def _names(suite: str) -> tuple[str, str, str]:
    """The system, slim Python and full Python that this recipe makes of a suite."""
    mark = _mark(suite)
    python = (f"course-base/python-{target}:{suite}-{mark}" for target in ("slim", "full"))
    return (f"course-base/{suite}:{mark}", *python)  # type: ignore[return-value]  # three, as annotated


def _built_suite() -> str:
    """The suite whose finished bases are here and of this recipe, this machine's own first; an archive may bring another."""
    listed = shell.run(
        ["docker", "image", "ls", "--format={{.Tag}}", "course-base/python-slim"], show=False, check=False, timeout=20
    )
    suites = [
        suite for tag in listed.output.split() if (suite := tag.rpartition("-")[0]) and tag.endswith(_mark(suite))
    ]
    whole = [suite for suite in suites if present(_names(suite)[2])]
    return _suite() if _suite() in whole else next(iter(whole), "")


def _retire_older(mark: str) -> None:
    """Takes away what this checkout built from an earlier recipe."""
    for row in ledger.rows(lifetime="kept", checkout=CHECKOUT):
        built = row.kind == "image" and row.name.startswith("course-base/") and ":pinned-" not in row.name
        if built and not row.name.endswith(mark):
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
    if not at_hand(pin):
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
    if here := at_hand(pin):
        return here
    ledger.write_down("image", pin.pinned, "kept")
    try:
        shell.run(
            ["docker", "pull", "--quiet", pin.pinned],
            timeout=1800,
            do="Without a registry, run with IMAGES=debian (Debian and Ubuntu: built from packages), or `course images load ARCHIVE`.",
        )
    except BaseException:
        if not present(pin.pinned):
            ledger.strike("image", pin.pinned)
        raise
    return pin.pinned


def _suite() -> str:
    release = packages.os_release()
    return release["VERSION_CODENAME"] if release.get("ID") == "ubuntu" else _DEBIAN_SUITE


def _bootstrap(suite: str, reference: str) -> None:
    """A minimal system from the distribution's packages, imported as an image (a quarter of a minute)."""
    if not _has_packages():
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
    if os.geteuid() != 0:  # its files belong to root and to system users
        shell.announce("# mmdebstrap makes a system's files, which takes root: sudo may ask for your password")
        command = ["sudo", *command]
    try:
        shell.pipe(command, ["docker", "import", "--change", 'CMD ["/bin/bash"]', *marks, "-", reference])
    except shell.CommandError as error:
        shell.run(["docker", "image", "rm", reference], show=False, check=False)
        raise CourseError(
            f"the base image could not be built from {suite}'s packages",
            why=error.why,
            do="Check that the package mirror is reachable (`sudo apt-get update`) and that the disk is not full.",
        ) from None
