"""Which image the nodes of a cluster are: kind's own, one that was given, or one built from packages."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import yaml

from course_lib import ledger, shell
from course_lib.cluster import fallback_node, tools
from course_lib.errors import CourseError
from course_lib.settings import CHECKOUT, settings

METRICS = CHECKOUT / "k8s" / "metrics-server"


@dataclass(frozen=True)
class NodeImage:
    """What `kind create cluster` is told."""

    reference: str
    """Empty for the one that a kind of another release than the pinned one names itself, by digest."""
    kind: Path
    """The program that can start it."""
    why: str
    fallback: bool = False
    """Built from packages: an old Kubernetes, see k8s/kind/fallback-node/README.md."""


def choose(source: tools.Source) -> NodeImage:
    """The nodes' image for this machine, made where it has to be.

    Args:
        source: where images come from here: a registry, or Debian's packages.

    Raises:
        CourseError: COURSE_NODE_IMAGE is neither an image that can be had nor an archive of one, or nothing else can be had.
    """
    if given := settings().node_image:
        archive = Path(given)
        reference = load(archive) if archive.is_file() else given
        fallback = reference.startswith(f"{fallback_node.NAME}:")  # carried here from a machine that built it
        kind = tools.kind("debian", exactly=fallback_node.KIND) if fallback else tools.kind(source)
        return NodeImage(reference, kind, f"COURSE_NODE_IMAGE={given}", fallback=fallback)
    if source == "registry":
        kind = tools.kind(source)
        return NodeImage(tools.node_of(kind), kind, "kind's own, from its registry")
    kind = tools.kind("debian", exactly=fallback_node.KIND)
    return NodeImage(fallback_node.ensure(), kind, "no registry answers, so it is built from packages", fallback=True)


def ensure(source: tools.Source) -> str:
    """Makes sure that clusters can be started without a network; returns the nodes' image.

    Raises:
        CourseError: the image or a program can't be had.
    """
    chosen = choose(source)
    tools.kubectl(source)
    for reference in (
        chosen.reference,
        "" if chosen.fallback else metrics_image(),
    ):  # the fallback has the second inside
        if reference and not _is_here(reference):
            ledger.write_down("image", reference, "kept")
            try:
                shell.run(["docker", "pull", "--quiet", reference], timeout=1800, do=_NO_REGISTRY)
            except BaseException:
                ledger.strike("image", reference)
                raise
    return chosen.reference or "the one that this machine's kind names, fetched by the first cluster"


_NO_REGISTRY = "Without a registry, IMAGES=debian builds a node image from packages, and `course cluster image load` takes an archive."


def metrics_image() -> str:
    """What the metrics server runs, which every cluster of the course gets."""
    objects = yaml.safe_load_all((METRICS / "metrics-server.yaml").read_text())
    deployment = next(one for one in objects if one["kind"] == "Deployment")
    return str(deployment["spec"]["template"]["spec"]["containers"][0]["image"])


def _is_here(reference: str) -> bool:
    return shell.succeeds(["docker", "image", "inspect", "--format=1", reference])


def metrics_to_load(node: NodeImage) -> str:
    """The metrics server's image where nodes don't have it and this engine does, so that they need not pull it; else empty."""
    return "" if node.fallback or not _is_here(metrics_image()) else metrics_image()


def save(reference: str, archive: Path) -> int:
    """Writes a node image to a file, the metrics server's beside it where it is here, and returns the size in bytes.

    Raises:
        CourseError: the file exists already, the image is not here, or the disk is full.
    """
    if archive.exists():
        raise CourseError(f"{archive} is already there", do="Give another name, or remove it.")
    try:
        beside = [metrics_image()] if _is_here(metrics_image()) else []
        shell.run(["docker", "image", "save", "--output", str(archive), reference, *beside], timeout=1800)
    except BaseException:
        archive.unlink(missing_ok=True)
        raise
    return archive.stat().st_size


def load(archive: Path) -> str:
    """Loads a node image from a file, and the metrics server's where it is in there, and returns the node image's reference.

    Raises:
        CourseError: the file is no archive of one node image.
    """
    do = "Give a file that `course cluster image save` wrote."
    said = shell.run(["docker", "image", "load", "--input", str(archive)], timeout=1800, do=do).stdout
    names = [line.partition(": ")[2].strip() for line in said.splitlines() if line.startswith("Loaded image")]
    names = [name for name in names if name != metrics_image()]
    if len(names) != 1:
        raise CourseError(f"{archive} holds {len(names)} images, and a node image is one", why=said, do=do)
    return names[0]
