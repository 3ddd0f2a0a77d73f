"""Base images: whether they are here, and where they would come from if not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from course_lib import shell
from course_lib.doctor.check import Check
from course_lib.doctor.finding import Finding, error, note, ok
from course_lib.doctor.machine import Machine
from course_lib.settings import Images, settings

_SOURCES: dict[Images, str] = {
    "auto": "a registry where one answers, else from Debian's or Ubuntu's packages",
    "registry": "a registry (IMAGES=registry)",
    "debian": "Debian's or Ubuntu's packages (IMAGES=debian)",
}
#: What `course_lib.images.bases` calls those that it builds.
_BUILT = ("course-base/python-slim:", "course-base/python-full:")


def origin(images: Sequence[str], pinned: Sequence[str]) -> str:
    """Where the two Python bases among the engine's images are from; empty where they are not complete."""
    if pinned and all(reference in images for reference in pinned):
        return "from a registry"
    if all(any(image.startswith(name) for image in images) for name in _BUILT):
        return "built from packages"
    return ""


def judge(here: str, images: Images, debian: bool) -> Finding:
    """Pure: the bases' origin, the setting IMAGES, and whether this system has apt's packages."""
    if here:
        return ok(f"python-slim and python-full are here, {here}")
    if images == "debian" and not debian:
        return error(
            "IMAGES=debian, but this is neither Debian nor Ubuntu",
            "Leave IMAGES out, or run `course images load ARCHIVE` with one that `course images save` wrote.",
        )
    source = _SOURCES[images] if debian or images != "auto" else "a registry"
    return note(
        f"not here yet; they will come from {source}",
        "Run `course setup` while there is a network: after it, the labs need none.",
    )


def examine(machine: Machine) -> list[Finding]:
    from course_lib.images import bases, pins

    wanted = [pin for name, pin in pins.load().items() if name.startswith("python-")]
    command = ["docker", "image", "ls", "--format={{.Repository}}:{{.Tag}}"]
    listed = shell.run(command, show=False, timeout=5).output.splitlines()
    # A pull by digest makes no tag to be listed: each is asked for by its full name.
    pinned = [bases.at_hand(pin) or pin.pinned for pin in wanted]
    listed += [reference for reference in pinned if bases.present(reference)]
    return [judge(origin(listed, pinned), settings().images, Path("/etc/debian_version").exists())]


CHECK = Check("base images", examine, needs_engine=True, seconds=8)
