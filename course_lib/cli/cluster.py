"""`course cluster`: a cluster for the terminal, and the image of its nodes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from course_lib.cli.screen import console, show_commands

if TYPE_CHECKING:
    from course_lib.cluster import KindCluster

app = typer.Typer(no_args_is_help=True, help="A Kubernetes cluster on this machine, by kind.")
image_app = typer.Typer(
    no_args_is_help=True, help="The nodes' image: build it, carry it to a machine without a network."
)
app.add_typer(image_app, name="image")


@app.command("up")
def up(
    workers: Annotated[int, typer.Option(min=0, max=8, help="Nodes beside the control plane.")] = 0,
) -> None:
    """Makes a cluster, or leaves the one that runs alone, and says how to speak to it. It stays until `course cluster down`.

    Example: `course cluster up --workers 2`
    """
    show_commands()
    found = _own_cluster(workers)
    found.up()
    _show_cluster(found)


@app.command("down")
def down() -> None:
    """Removes the cluster of `course cluster up` with everything in it.

    Example: `course cluster down`
    """
    show_commands()
    _own_cluster().down()


@app.command("status")
def status() -> None:
    """The nodes of the cluster of `course cluster up`, and how to speak to it; ends with 1 where there is none.

    Example: `course cluster status`
    """
    _show_cluster(_own_cluster())


@app.command("load")
def load(image: Annotated[str, typer.Argument(help="An image of this machine's engine.")]) -> None:
    """Copies an image onto every node of the cluster of `course cluster up`: nodes have no registry to pull it from.

    Example: `course cluster load inference-server:1.0`
    """
    show_commands()
    _own_cluster().load(image)


def _own_cluster(workers: int = 0) -> KindCluster:
    """The cluster that a person starts in a terminal."""
    from course_lib import cluster
    from course_lib.images import bases

    return cluster.KindCluster("shell", source=bases.source()[0], workers=workers, lifetime="kept")


def _show_cluster(found: KindCluster) -> None:
    for node in found.nodes():
        console.print(f"{node.name:<36} {node.role:<14} {node.version:<12} {node.words()}", highlight=False)
    where = os.path.relpath(found.kubeconfig)
    console.print(f"export KUBECONFIG=$(realpath {where})", highlight=False, soft_wrap=True)


@image_app.command("build")
def image_build() -> None:
    """Builds the node image for machines that reach no image registry, from Debian's packages: 5 to 8 minutes, once.

    Example: `course cluster image build`
    """
    from course_lib.cluster import fallback_node

    show_commands()
    print(fallback_node.ensure())


@image_app.command("save")
def image_save(archive: Annotated[Path, typer.Argument(help="File to write.")]) -> None:
    """Writes the nodes' image to a file, for a machine without a network; an image of kind's own is pulled by `cluster up` first.

    Example: `course cluster image save node.tar`
    """
    from course_lib.cluster import node_image

    show_commands()
    found = _own_cluster()
    console.print(f"{node_image.save(found.node_reference(), archive) / 1e6:,.0f} MB", highlight=False)


@image_app.command("load")
def image_load(
    archive: Annotated[Path, typer.Argument(help="File that `course cluster image save` wrote.")],
) -> None:
    """Loads a node image from a file and prints its name; COURSE_NODE_IMAGE=NAME then starts clusters of it.

    Example: `course cluster image load node.tar`
    """
    from course_lib.cluster import node_image

    show_commands()
    print(node_image.load(archive))
