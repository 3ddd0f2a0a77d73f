"""A kind node image from Debian packages, where no registry gives one; why and how: k8s/kind/fallback-node/README.md."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from pathlib import Path

from course_lib import ledger, shell
from course_lib.errors import CourseError
from course_lib.host import packages
from course_lib.lab import display
from course_lib.settings import CHECKOUT, settings

RECIPE = CHECKOUT / "k8s" / "kind" / "fallback-node"
#: The kind that starts it: later ones don't configure so old a Kubernetes any more.
KIND = (0, 27)
NAME = "course-cluster/kind-node"
_MINUTES = 60.0
_DO = "Let an image registry answer (IMAGES=registry), or `course cluster image load ARCHIVE` with one that `course cluster image save` wrote."


def reference() -> str:
    """The image's name: another recipe makes another one."""
    digest = hashlib.sha256()
    for file in sorted(p for p in RECIPE.rglob("*") if p.is_file() and p.suffix != ".md"):
        digest.update(str(file.relative_to(RECIPE)).encode() + b"\0" + file.read_bytes() + b"\0")
    return f"{NAME}:{digest.hexdigest()[:12]}"


def ensure() -> str:
    """The image's reference, built where it is missing (*kept*; 5 to 8 minutes on two cores).

    Raises:
        CourseError: it can't be built here, or the build failed.
    """
    name = reference()
    if not shell.succeeds(["docker", "image", "inspect", "--format=1", name]):
        _build(name)
        _retire_older(name)
    return name


def _build(name: str) -> None:
    if not Path("/etc/debian_version").exists():
        raise CourseError("a node image can be built from packages on Debian and Ubuntu only", do=_DO)
    if shutil.which("mmdebstrap") is None:
        packages.install("mmdebstrap")
    folder = CHECKOUT / ".cache" / "kind-node"
    mine = settings().object_name("kind-node")
    ledger.write_down("folder", str(folder))
    for part in ("run", "node"):
        ledger.write_down("container", f"{mine}-{part}")
    between = [f"{mine}:{part}" for part in ("build", "base", "stage")]
    for image in between:
        ledger.write_down("image", image)
    ledger.write_down("image", name, "kept")
    labels = [f"{key}={value}" for key, value in ledger.labels("kept", "image", reference=name).items()]
    command = [str(RECIPE / "build"), str(folder), name, *labels]
    if os.geteuid() != 0:  # its files belong to root and to system users
        shell.announce("# a node's file system belongs to root: sudo may ask for your password")
        command = ["sudo", f"NAME={mine}", *command]
    shell.announce("# no registry gives a node image: building one from Debian's packages, 5 to 8 minutes, once")
    live = display.Live()

    def show(line: str) -> None:
        if line.startswith("step "):
            live.draw_text(line.removeprefix("step ").strip())
            if not display.in_notebook():
                print(f"course: node image, {line.removeprefix('step ').strip()}", file=sys.stderr, flush=True)

    try:
        shell.run(command, show=False, timeout=45 * _MINUTES, on_line=show, env={"NAME": mine}, do=_DO)
    except BaseException:
        ledger.strike("image", name)
        raise
    finally:
        _tidy(folder, between)


def _tidy(folder: Path, images: list[str]) -> None:
    """What only the build needed; Go's caches are read-only folders."""
    sudo = [] if os.geteuid() == 0 else ["sudo"]
    shell.run([*sudo, "rm", "-rf", str(folder)], show=False, check=False, timeout=120)
    ledger.strike("folder", str(folder))
    shell.run(["docker", "image", "rm", "--force", *images], show=False, check=False, timeout=120)
    for image in images:
        ledger.strike("image", image)
    for part in ("run", "node"):
        name = settings().object_name("kind-node")
        shell.run(["docker", "rm", "--force", "--volumes", f"{name}-{part}"], show=False, check=False, timeout=60)
        ledger.strike("container", f"{name}-{part}")


def _retire_older(name: str) -> None:
    """Takes away what this checkout built from an earlier recipe."""
    for row in ledger.rows(lifetime="kept", checkout=CHECKOUT):
        if row.kind == "image" and row.name.startswith(f"{NAME}:") and row.name != name:
            shell.run(["docker", "image", "rm", row.name], show=False, check=False)
            ledger.strike("image", row.name)
