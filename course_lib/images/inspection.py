"""What is in an image, read from the engine: its layers, its files, its packages, its platform."""

from __future__ import annotations

import json
import re
import shutil
import tarfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from docker.errors import ImageNotFound

from course_lib import ledger, reaper, shell
from course_lib.errors import CourseError
from course_lib.images.engine_client import client
from course_lib.lab.steps import record
from course_lib.settings import settings


@dataclass(frozen=True)
class Layer:
    """One line of an image's history."""

    instruction: str
    size: int
    """Bytes the instruction added, uncompressed."""


@dataclass(frozen=True)
class File:
    """A file of an image and the instruction that put it there."""

    path: str
    size: int
    layer: int
    instruction: str


def attributes(reference: str) -> dict[str, Any]:
    """What the engine says of an image (`docker image inspect`).

    Raises:
        CourseError: the engine has no such image.
    """
    try:
        return dict(client().images.get(reference).attrs)
    except ImageNotFound:
        raise CourseError(
            f"the engine has no image {reference}", do="Build it first, or check the name with `docker image ls`."
        ) from None


def size(reference: str) -> int:
    """An image's size in bytes, uncompressed, shared layers included."""
    return int(attributes(reference)["Size"])


def platform(reference: str) -> str:
    """An image's platform, such as linux/arm64."""
    found = attributes(reference)
    return f"{found['Os']}/{found['Architecture']}"


def layers(reference: str) -> list[Layer]:
    """An image's history, oldest instruction first."""
    attributes(reference)
    history = reversed(client().api.history(reference))
    return [Layer(_instruction(entry["CreatedBy"]), int(entry["Size"])) for entry in history]


def _instruction(created_by: str) -> str:
    """An instruction as it stands in the Dockerfile: the shell wrapper and BuildKit's remark taken off."""
    text = created_by.removesuffix("# buildkit").strip()
    if not text:
        return "(imported: the system below)"
    text = re.sub(r"^(RUN )?/bin/sh -c #\(nop\)\s*", "", text)
    return re.sub(r"^(RUN )?(\|\d+ .*?)?/bin/sh -c ", "RUN ", text)


def extends(reference: str, base: str) -> None:
    """Reads back that an image stands on a base: the base's layers are its first ones.

    Raises:
        CourseError: it does not.
    """
    of_base = attributes(base)["RootFS"]["Layers"]
    of_image = attributes(reference)["RootFS"]["Layers"]
    if of_image[: len(of_base)] != of_base:
        raise CourseError(
            f"{reference} does not stand on {base}",
            why=f"The base has {len(of_base)} layers, and they are not its first ones.",
        )
    record(
        "image.extends-base",
        "docker",
        reference,
        base=base,
        base_layers=len(of_base),
        layers=len(of_image),
        platform=platform(reference),
    )


@contextmanager
def unpacked(reference: str) -> Iterator[tuple[Path, list[str], list[str]]]:
    """`docker image save`, unpacked: the folder, the layers' archives and the instructions that made them, in order.

    Raises:
        CourseError: no such image, or the disk is full.
    """
    attributes(reference)
    held = settings().state_dir / f"image-{uuid.uuid4().hex}"  # /tmp may be a part of memory
    ledger.write_down("folder", str(held))
    try:
        layers, made_by = _unpack(reference, held)
        yield held, layers, made_by
    finally:
        shutil.rmtree(held, ignore_errors=True)
        ledger.strike("folder", str(held))


def _unpack(reference: str, held: Path) -> tuple[list[str], list[str]]:
    try:
        held.mkdir()
        archive = held / "image.tar"
        shell.run(["docker", "image", "save", "--output", str(archive), reference], show=False)
        with tarfile.open(archive) as tar:
            tar.extractall(held, filter="data")
        archive.unlink()
    except OSError as error:
        raise CourseError(
            f"{reference} could not be unpacked in {held.parent}",
            why=str(error),
            do=f"It takes twice the image's size ({size(reference) / 1e6:,.0f} MB) for a moment: make room, or run `course cleanup`.",
        ) from None
    manifest = json.loads((held / "manifest.json").read_text())[0]
    config = json.loads((held / manifest["Config"]).read_text())
    made_by = [_instruction(e.get("created_by", "")) for e in config.get("history", []) if not e.get("empty_layer")]
    layers: list[str] = manifest["Layers"]
    return layers, made_by + ["(imported)"] * (len(layers) - len(made_by))


def files(reference: str) -> dict[str, File]:
    """Every file of an image by path, with the instruction that put (or last changed) it there; deleted ones are gone."""
    found: dict[str, File] = {}
    with unpacked(reference) as (folder, archives, instructions):
        for number, (archive, instruction) in enumerate(zip(archives, instructions, strict=False)):
            with tarfile.open(folder / archive) as tar:
                for member in tar:
                    path = "/" + member.name.removeprefix("./").strip("/")
                    head, _, name = path.rpartition("/")
                    if name == ".wh..wh..opq":
                        found = {p: f for p, f in found.items() if not p.startswith(head + "/")}
                    elif name.startswith(".wh."):
                        gone = f"{head}/{name.removeprefix('.wh.')}"
                        found = {p: f for p, f in found.items() if p != gone and not p.startswith(gone + "/")}
                    elif not member.isdir():
                        found[path] = File(path, member.size, number, instruction)
    return found


def layer_files(reference: str) -> list[tuple[str, dict[str, bytes]]]:
    """For each layer its instruction and the small files (up to 64 KiB) in it, deleted-later ones too: a layer forgets nothing."""
    found: list[tuple[str, dict[str, bytes]]] = []
    with unpacked(reference) as (folder, archives, instructions):
        for archive, instruction in zip(archives, instructions, strict=False):
            held: dict[str, bytes] = {}
            with tarfile.open(folder / archive) as tar:
                for member in tar:
                    if member.isfile() and member.size <= 65536 and (opened := tar.extractfile(member)):
                        held["/" + member.name.strip("/")] = opened.read()
            found.append((instruction, held))
    return found


#: What building takes and running does not, by the paths it lies at.
BUILD_LEFTOVERS = {
    "a compiler": re.compile(r"/bin/(gcc|cc|g\+\+|c\+\+|clang|make|ld)$"),
    "the cache of pip": re.compile(r"/\.cache/pip/"),
    "package lists of apt": re.compile(r"^/var/lib/apt/lists/.+_Packages$"),
    "C headers of Python": re.compile(r"/Python\.h$"),
    "pip": re.compile(r"/(site|dist)-packages/pip/__init__\.py$"),
}


#: Prints every path of a file system, the kernel's own trees left out.
_WALK = """
import os
for folder, folders, files in os.walk("/"):
    if folder == "/":
        folders[:] = [f for f in folders if f not in ("proc", "sys", "dev")]
    for name in files:
        print(os.path.join(folder, name))
"""


def paths(reference: str) -> frozenset[str]:
    """Every file's path in an image, listed from inside by root (a listing takes a second, unpacking the layers ten)."""
    return frozenset(in_container(reference, _WALK, user="0").splitlines())


def build_leftovers(reference: str, *, base: str | None = None) -> dict[str, str]:
    """What an image carries of its own building: each kind found, with one path as proof.

    Args:
        base: count only what this base does not have (official Python images bring a pip of their own, NGC's a compiler).
    """
    mine = paths(reference) - (paths(base) if base else frozenset())
    found: dict[str, str] = {}
    for path in sorted(mine):
        for what, pattern in BUILD_LEFTOVERS.items():
            if what not in found and pattern.search(path):
                found[what] = path
    return found


def require_nothing_left_of_the_build(reference: str, base: str) -> None:
    """Reads an image's own file system, above its base, for compilers, caches, package lists, headers and installers.

    Raises:
        CourseError: something is there; names it.
    """
    left = build_leftovers(reference, base=base)
    if left:
        raise CourseError(
            f"{reference} still carries what only its building needed",
            why="\n".join(f"{what}: {path}" for what, path in left.items()),
            do="Copy the finished environment into a second stage that starts from a slim base.",
        )
    record(
        "image.nothing-left-of-the-build",
        "docker",
        reference,
        files=len(paths(reference)),
        above=base,
        looked_for=list(BUILD_LEFTOVERS),
    )


def require_stages(builder: str, final: str, base: str) -> None:
    """Reads back that nothing of the builder stage's layers is in the final image, except the base both stand on.

    Raises:
        CourseError: they share more than the base.
    """
    held = {
        name: attributes(reference)["RootFS"]["Layers"]
        for name, reference in (("builder", builder), ("final", final), ("base", base))
    }
    shared = set(held["builder"]) & set(held["final"]) - set(held["base"])
    if shared:
        raise CourseError(
            f"{final} carries {len(shared)} layers of its own building",
            do="Start the last stage from the slim base, and COPY --from=builder only what runs.",
        )
    record(
        "image.stages", "docker", final, builder_megabytes=round(size(builder) / 1e6), final_megabytes=round(size(final) / 1e6),
        layers_shared_beyond_the_base=0,
    )  # fmt: skip


def in_container(reference: str, script: str, *, user: str | None = None, timeout: float = 120) -> str:
    """Runs Python source in a container of an image that has no network, and returns what it printed."""
    name = f"course-look-{ledger.Session.current().pid}-{abs(hash((reference, script))) % 10**8}"
    ledger.write_down("container", name)
    command = [
        "docker",
        "run",
        "--rm",
        "--network=none",
        f"--name={name}",
        *ledger.label_arguments(),
        "--entrypoint=python3",
    ]
    command += [f"--user={user}"] if user else []
    try:
        return shell.run([*command, reference, "-c", script], show=False, timeout=timeout).output
    finally:
        reaper.dispose("container", name)
