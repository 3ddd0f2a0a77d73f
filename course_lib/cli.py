"""`course`: what a person types. Parses, calls, prints; the work is done in the rooms."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from course_lib import shell
from course_lib.doctor.finding import Finding
from course_lib.errors import CourseError

if TYPE_CHECKING:
    from course_lib.cluster import KindCluster

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode="markdown", help=(
    "From one machine to production: seven labs that deploy a model for real.\n\n"
    "Start with `course doctor`, then `course lab`."
))  # fmt: skip
images_app = typer.Typer(
    no_args_is_help=True, help="Base images: pin them by digest, carry them to a machine without a network."
)
bench_app = typer.Typer(no_args_is_help=True, help="The figures in the documents, measured again on this machine.")
cluster_app = typer.Typer(no_args_is_help=True, help="A Kubernetes cluster on this machine, by kind.")
node_app = typer.Typer(
    no_args_is_help=True, help="The nodes' image: build it, carry it to a machine without a network."
)
app.add_typer(images_app, name="images")
app.add_typer(cluster_app, name="cluster")
cluster_app.add_typer(node_app, name="image")
app.add_typer(bench_app, name="bench")

console = Console()
notes = Console(stderr=True)


def main() -> None:
    """Runs the command; an error a person caused ends in a sentence, not in a traceback."""
    try:
        app()
    except CourseError as error:
        notes.print(f"[red]{escape(str(error))}[/red]", highlight=False)
        sys.exit(1)


def _show_commands() -> None:
    shell.show_commands_with(lambda line: notes.print(f"[dim]$ {escape(line)}[/dim]", highlight=False, soft_wrap=True))


@app.command()
def setup() -> None:
    """Makes this machine ready: an engine that answers, base images, the course's image.

    After it, every lab runs without a network.

    Example: `course setup`
    """
    from course_lib import images, stacks
    from course_lib.cluster import node_image
    from course_lib.host import setup as host_setup
    from course_lib.images import bases, buildkit, registry
    from course_lib.settings import settings

    _show_commands()
    said: set[str] = set()

    def watch(steps: list[buildkit.BuildStep]) -> None:
        """A build takes minutes: each instruction is named once, when it begins."""
        for step in steps:
            if step.name not in said:
                said.add(step.name)
                notes.print(f"[dim]  {escape(step.name)}[/dim]", highlight=False, soft_wrap=True)

    buildkit.watcher.set(watch)
    found = host_setup.ready()
    console.print(f"Docker Engine {found.version}")
    # Not only what is missing: all layers that the labs build, so that their builds come from the cache.
    image = images.build_inference_image().reference
    images.build_builder_stage()
    images.build_naive_image()
    console.print(f"registry {registry.ensure_image()}", highlight=False)
    for name, reference in sorted(stacks.built_variables(images.stack_variables()).items()):
        console.print(f"{name.removesuffix('_IMAGE').lower()} {reference}", highlight=False)
    if settings().target != "kube-context":
        console.print(f"node {node_image.ensure(bases.source()[0])}", highlight=False)
    print(image)  # the last line, and nothing but the name, for scripts


@app.command()
def run(
    labs: Annotated[
        list[str] | None,
        typer.Argument(
            help="Lab ids (4.4.1, rollouts) or notebooks (work/lab-4.4.1-….ipynb); none means the seven labs."
        ),
    ] = None,
    solutions: Annotated[bool, typer.Option(help="Run the solutions; fail for exercises that don't pass.")] = False,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="A parameter of the notebooks; repeatable.")
    ] = None,
) -> None:
    """Executes labs from top to bottom against the real engine and writes reports/latest/index.html.

    Ends with 0 when nothing failed, 1 when something did, 2 when a requested lab was not run.

    Example: `course run 4.4.1 --set load_requests=50`
    """
    from course_lib import doctor as doctor_rooms
    from course_lib.runner import run as runner

    found = runner.run(
        labs or [], solutions=solutions, parameters=_parameters(set_ or []), require_fit=doctor_rooms.require
    )
    for result in found.labs:
        steps = sum(step["status"] == "passed" for step in result.steps)
        console.print(f"lab {result.lab.id}: {result.status}, {steps} of {len(result.steps)} steps", highlight=False)
        for problem in result.problems:
            console.print(f"  {escape(problem)}", style="red", highlight=False)
    if found.problem:
        notes.print(escape(found.problem), style="red", highlight=False)
    for row in found.left_behind:
        console.print(f"left behind: {row.kind} {row.name}", style="red")
    console.print("report: reports/latest/index.html", highlight=False)
    raise typer.Exit(found.exit_status)


def _parameters(given: list[str]) -> dict[str, int | str]:
    """NAME=VALUE pairs; whole numbers as such."""
    found: dict[str, int | str] = {}
    for one in given:
        name, equals, value = one.partition("=")
        if not equals or not name.isidentifier():
            raise CourseError(f"--set {one} is not NAME=VALUE", do="Write it as in --set load_requests=50.")
        found[name] = int(value) if re.fullmatch(r"-?\d+", value) else value
    return found


@app.command()
def lab(
    port: Annotated[int, typer.Option(help="Port of 127.0.0.1; the next free one is taken if it is not free.")] = 8888,
    browser: Annotated[bool, typer.Option(help="Open a browser window.")] = True,
) -> None:
    """Copies each lab's notebook to work/ (never over yours) and opens JupyterLab there.

    Example: `course lab --no-browser`
    """
    from course_lib.lab import jupyter, workspace

    for said in workspace.prepare():
        console.print(said, highlight=False)
    port = jupyter.free_port(port)
    if tunnel := jupyter.tunnel(port, os.environ):
        console.print(f"You came by SSH. On your own machine: {tunnel}", highlight=False)
    command = jupyter.command(port, browser=browser and not tunnel)
    raise typer.Exit(subprocess.run(command, check=False).returncode)


@app.command()
def doctor(
    lab: Annotated[str, typer.Option(help="Only what this lab needs.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Findings as JSON.")] = False,
    fix: Annotated[bool, typer.Option(help="Mend what can be mended.")] = False,
) -> None:
    """Looks at this machine and says what would stop a lab, and what to do about it.

    Example: `course doctor --lab 4.4.1`
    """
    from course_lib import doctor as rooms

    findings = rooms.examine(lab or None)
    if fix:
        _show_commands()
        findings = rooms.mend(findings, lab or None)
    if as_json:
        print(json.dumps([finding.as_json() for finding in findings], indent=2))
    else:
        _print_findings(findings)
    raise typer.Exit(1 if any(finding.severity == "error" for finding in findings) else 0)


def _print_findings(findings: list[Finding]) -> None:
    looks = {"ok": ("green", "✓"), "note": ("cyan", "·"), "warning": ("yellow", "!"), "error": ("red", "✗")}
    table = Table.grid(padding=(0, 2, 0, 0))
    for finding in findings:
        style, sign = looks[finding.severity]
        message = escape(finding.message) + (f"\n[bold]->[/bold] {escape(finding.remedy)}" if finding.remedy else "")
        table.add_row(f"[{style}]{sign}[/{style}]", f"[bold]{escape(finding.check)}[/bold]", message)
    console.print(table, highlight=False)
    errors = sum(finding.severity == "error" for finding in findings)
    console.print(
        f"{errors} of these would stop a lab." if errors else "Nothing here would stop a lab.", highlight=False
    )


@app.command()
def cleanup(
    check: Annotated[bool, typer.Option(help="Only look; ends with 1 when something is left behind.")] = False,
    all_: Annotated[
        bool, typer.Option("--all", help="Also what is kept on purpose: base images and the course's image.")
    ] = False,
    build_cache: Annotated[
        bool, typer.Option(help="Also BuildKit's cache, the whole engine's: other projects build slower once, too.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="What was found, as JSON.")] = False,
) -> None:
    """Removes what the course made and left; never touches anything else.

    Example: `course cleanup --check`
    """
    from course_lib import cleanup as cleaning

    found = cleaning.survey() if check else cleaning.clean(everything=all_, build_cache=build_cache)
    if as_json:
        print(json.dumps(found.as_json(), indent=2))
    else:
        for line in found.lines():
            console.print(line, highlight=False)
    raise typer.Exit(1 if found.left or not found.engine else 0)


@app.command()
def build(
    labs: Annotated[list[str] | None, typer.Argument(help="Lab ids; none means all, extensions too.")] = None,
    check: Annotated[bool, typer.Option(help="Only say what is stale; ends with 1 when something is.")] = False,
    execute: Annotated[bool, typer.Option(help="Also execute the solutions and store their outputs.")] = True,
) -> None:
    """Makes labs/ and the executed solutions from solutions/*.py.

    Example: `course build 4.4.1 --no-execute`
    """
    from course_lib.authoring import build as authoring
    from course_lib.lab import catalog

    wanted = [catalog.lab(one) for one in labs or list(catalog.every())]
    if check:
        found = [said for one in wanted for said in authoring.stale(one)]
        for said in found:
            console.print(said, style="red", highlight=False)
        raise typer.Exit(1 if found else 0)
    for one in wanted:
        authoring.write_learner_notebook(one)
        console.print(f"wrote labs/{one.notebook}", highlight=False)
        if execute:
            authoring.execute_solution(
                one, lambda number, total, label: notes.print(f"  {number}/{total} {escape(label)}", highlight=False)
            )
            console.print(f"wrote solutions/{one.notebook}", highlight=False)


@app.command()
def stack(
    env: Annotated[bool, typer.Option("--env", help="Only write an env file, for `docker compose` by hand.")] = False,
    production: Annotated[bool, typer.Option(help="The profile production instead of development.")] = False,
    gpu: Annotated[bool, typer.Option(help="Lay compose.gpu.yaml over it.")] = False,
    replicas: Annotated[int, typer.Option(min=1, help="How many inference servers.")] = 1,
) -> None:
    """Starts the RAG stack of lab 4.4.2, says where it answers, and takes it down at Ctrl-C.

    With --env nothing is started: images and secrets are made, and what is started with the file is yours alone.

    Example: `course stack --replicas 3`
    """
    from course_lib import images, stacks
    from course_lib.stacks.gpu import OVERRIDE

    _show_commands()
    found = stacks.course_stack(
        images.stack_variables(),
        short="by-hand" if env else "shell",
        profiles=("production",) if production else ("development",),
        overrides=(OVERRIDE,) if gpu else (),
        variables={"INFERENCE_REPLICAS": str(replicas)},
    )
    if env:
        file = stacks.by_hand(found)
        console.print(f"docker compose --env-file {os.path.relpath(file)} up --detach", highlight=False, soft_wrap=True)
        return
    with stacks.running(found):
        for what, address in found.addresses().items():
            console.print(f"{what:<14} {address}", highlight=False)
        notes.print("Ctrl-C takes it down, with its volumes.")
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()


@images_app.command("pin")
def images_pin() -> None:
    """Asks the registries for each image's digest and rewrites docker/base/images.toml.

    Example: `course images pin`
    """
    from course_lib.images import pins

    said = pins.pin_all()
    for name, digest in said.items():
        console.print(f"{name}: {escape(digest)}", highlight=False)
    raise typer.Exit(0 if all(digest.startswith("sha256:") for digest in said.values()) else 1)


@images_app.command("save")
def images_save(archive: Annotated[Path, typer.Argument(help="File to write.")]) -> None:
    """Writes the base images and the course's image to one archive, for a machine without a network.

    Example: `course images save images.tar`
    """
    from course_lib import images, stacks
    from course_lib.images import archive as archives

    _show_commands()
    also = sorted(set(stacks.built_variables(images.stack_variables()).values()))
    console.print(f"{archives.save(archive, also=also) / 1e6:,.0f} MB", highlight=False)


@images_app.command("load")
def images_load(archive: Annotated[Path, typer.Argument(help="File that `course images save` wrote.")]) -> None:
    """Loads an archive of images that `course images save` wrote.

    Example: `course images load images.tar`
    """
    from course_lib.images import archive as archives

    _show_commands()
    for reference in archives.load(archive):
        console.print(reference, highlight=False)


@cluster_app.command("up")
def cluster_up(
    workers: Annotated[int, typer.Option(min=0, max=8, help="Nodes beside the control plane.")] = 0,
) -> None:
    """Makes a cluster, or leaves the one that runs alone, and says how to speak to it. It stays until `course cluster down`.

    Example: `course cluster up --workers 2`
    """
    _show_commands()
    found = _own_cluster(workers)
    found.up()
    _show_cluster(found)


@cluster_app.command("down")
def cluster_down() -> None:
    """Removes the cluster of `course cluster up` with everything in it.

    Example: `course cluster down`
    """
    _show_commands()
    _own_cluster().down()


@cluster_app.command("status")
def cluster_status() -> None:
    """The nodes of the cluster of `course cluster up`, and how to speak to it; ends with 1 where there is none.

    Example: `course cluster status`
    """
    _show_cluster(_own_cluster())


@cluster_app.command("load")
def cluster_load(image: Annotated[str, typer.Argument(help="An image of this machine's engine.")]) -> None:
    """Copies an image onto every node of the cluster of `course cluster up`: nodes have no registry to pull it from.

    Example: `course cluster load inference-server:1.0`
    """
    _show_commands()
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


@node_app.command("build")
def cluster_image_build() -> None:
    """Builds the node image for machines that reach no image registry, from Debian's packages: 5 to 8 minutes, once.

    Example: `course cluster image build`
    """
    from course_lib.cluster import fallback_node

    _show_commands()
    print(fallback_node.ensure())


@node_app.command("save")
def cluster_image_save(archive: Annotated[Path, typer.Argument(help="File to write.")]) -> None:
    """Writes the nodes' image to a file, for a machine without a network; an image of kind's own is pulled by `cluster up` first.

    Example: `course cluster image save node.tar`
    """
    from course_lib.cluster import node_image

    _show_commands()
    found = _own_cluster()
    console.print(f"{node_image.save(found.node_reference(), archive) / 1e6:,.0f} MB", highlight=False)


@node_app.command("load")
def cluster_image_load(
    archive: Annotated[Path, typer.Argument(help="File that `course cluster image save` wrote.")],
) -> None:
    """Loads a node image from a file and prints its name; COURSE_NODE_IMAGE=NAME then starts clusters of it.

    Example: `course cluster image load node.tar`
    """
    from course_lib.cluster import node_image

    _show_commands()
    print(node_image.load(archive))


@bench_app.command("image")
def bench_image(
    as_json: Annotated[Path | None, typer.Option("--json", help="File to write the figures to.")] = None,
) -> None:
    """Sizes and rebuild times of the naive and the optimised image.

    Example: `course bench image --json image.json`
    """
    from course_lib.bench import image

    _report(image.figures(), as_json)


@bench_app.command("run")
def bench_run(
    lab: Annotated[str, typer.Argument(help="Lab to run.")] = "4.4.1",
    as_json: Annotated[Path | None, typer.Option("--json", help="File to write the figures to.")] = None,
) -> None:
    """What the runner itself costs: time before the first cell, and share of a run outside cells.

    Example: `course bench run 4.4.1`
    """
    from course_lib.bench import run as bench

    _report(bench.figures(lab), as_json)


@bench_app.command("serve")
def bench_serve(
    as_json: Annotated[Path | None, typer.Option("--json", help="File to write the figures to.")] = None,
    quick: Annotated[
        bool, typer.Option(help="One short round, to see that it works; the figures mean little.")
    ] = False,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds; a figure is the median of them.")] = 5,
    seconds: Annotated[int, typer.Option(min=1, help="Seconds of load for a figure.")] = 8,
    only: Annotated[
        list[str] | None,
        typer.Option(help="Measure only this server (ours, litserve, bentoml, flask, fastapi); repeatable."),
    ] = None,
    from_: Annotated[
        Path | None, typer.Option("--from", help="Measure nothing: take the figures from this file.")
    ] = None,
    write_docs: Annotated[bool, typer.Option("--write-docs", help="Put the figures into COMPARISONS.md.")] = False,
) -> None:
    """The inference server against its own engine without HTTP, LitServe, BentoML, Flask and FastAPI: about 25 minutes.

    Example: `course bench serve --json serve.json`
    """
    from course_lib.bench import goals, serve, serve_table

    if from_:
        found = serve.read(from_)
    else:
        plan = serve.Plan.quick() if quick else serve.Plan(rounds=rounds, seconds=seconds)
        found = serve.figures(plan, only=only, say=lambda line: notes.print(f"[dim]{escape(line)}[/dim]"))
    heads, lines = serve_table.rows(found)
    for columns, body in ((heads, lines), (goals.HEADS, goals.lines(found))):
        _print_table(columns, body)
    if found["preliminary"]:
        notes.print("Preliminary: a quick run, or a machine with other work on it.")
    if as_json:
        as_json.write_text(json.dumps(found, indent=2) + "\n")
    if write_docs:
        serve_table.write(found)


@bench_app.command("soak")
def bench_soak(
    as_json: Annotated[Path | None, typer.Option("--json", help="File to write the figures to.")] = None,
    seconds: Annotated[int, typer.Option(min=10, help="Length of the run, warm-up included.")] = 600,
    write_docs: Annotated[bool, typer.Option("--write-docs", help="Put the figures into COMPARISONS.md.")] = False,
) -> None:
    """Everything at once against the inference server, rude clients and reloads among it; its memory has to stay flat.

    Exit code 1 where it did not, or where a request failed.

    Example: `course bench soak --seconds 60`
    """
    from course_lib.bench import document, soak

    found = soak.figures(seconds, say=lambda line: notes.print(f"[dim]{escape(line)}[/dim]"))
    _report(found, as_json)
    if write_docs:
        document.write("soak", soak.markdown(found))
    if found["failed"] or not found["flat"]:
        raise typer.Exit(1)


@bench_app.command("stack")
def bench_stack(
    as_json: Annotated[Path | None, typer.Option("--json", help="File to write the figures to.")] = None,
    quick: Annotated[
        bool, typer.Option(help="One short round, to see that it works; the figures mean little.")
    ] = False,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds; a figure is the median of them.")] = 3,
    only: Annotated[
        list[str] | None,
        typer.Option(help="Measure only this part, such as kills; repeatable. A wrong name lists them."),
    ] = None,
    from_: Annotated[
        Path | None, typer.Option("--from", help="Measure nothing: take the figures from this file.")
    ] = None,
    write_docs: Annotated[bool, typer.Option("--write-docs", help="Put the figures into COMPARISONS.md.")] = False,
) -> None:
    """The Compose stack of lab 4.4.2: start, answers, search, and what is lost when replicas die: about a quarter of an hour.

    Example: `course bench stack --json stack.json`
    """
    from course_lib.bench import document, goals, stack, stack_table

    if from_:
        found = stack.read(from_)
    else:
        plan = stack.Plan.quick() if quick else stack.Plan(rounds=rounds)
        found = stack.figures(
            plan, only=only, say=lambda line: notes.print(f"[dim]{escape(line)}[/dim]", highlight=False, soft_wrap=True)
        )
    if as_json:
        as_json.write_text(json.dumps(found, indent=2) + "\n")
    for title, heads, lines in (*stack_table.tables(found), ("", goals.HEADS, goals.lines(found))):
        _print_table(heads, lines, title)
    if found["preliminary"]:
        notes.print("Preliminary: a quick run, or a machine with other work on it.")
    if write_docs:
        document.write("stack", stack_table.markdown(found))


@bench_app.command("cluster")
def bench_cluster(
    as_json: Annotated[Path | None, typer.Option("--json", help="File to write the figures to.")] = None,
    quick: Annotated[
        bool, typer.Option(help="One short round, to see that it works; the figures mean little.")
    ] = False,
    rounds: Annotated[int, typer.Option(min=1, help="Starts, rollouts and accidents of a kind.")] = 3,
    clusters: Annotated[int, typer.Option(min=1, help="Fresh clusters that the autoscaler is tried in.")] = 10,
    only: Annotated[
        list[str] | None,
        typer.Option(help="Measure only this part, such as rollouts; repeatable. A wrong name lists them."),
    ] = None,
    from_: Annotated[
        list[Path] | None,
        typer.Option("--from", help="Measure nothing: take the figures from this file; several are put together."),
    ] = None,
    write_docs: Annotated[bool, typer.Option("--write-docs", help="Put the figures into COMPARISONS.md.")] = False,
) -> None:
    """The cluster of lab 4.4.5: start, rollouts and accidents under load, autoscaler, what is left: about an hour.

    Example: `course bench cluster --only rollouts --json rollouts.json`
    """
    from course_lib.bench import cluster, cluster_table, document, goals

    def keep(figures: dict[str, Any]) -> None:
        if as_json:
            as_json.write_text(json.dumps(figures, indent=2) + "\n")

    if from_:
        found = cluster.read(*from_)
    else:
        plan = cluster.Plan.quick() if quick else cluster.Plan(rounds=rounds, clusters=clusters)
        found = cluster.figures(
            plan,
            only=only,
            say=lambda line: notes.print(f"[dim]{escape(line)}[/dim]", highlight=False, soft_wrap=True),
            keep=keep,
        )
    keep(found)
    for title, heads, lines in (*cluster_table.tables(found), ("", goals.HEADS, goals.lines(found))):
        _print_table(heads, lines, title)
    if found["preliminary"]:
        notes.print("Preliminary: a quick run, or a machine with other work on it.")
    if write_docs:
        document.write("cluster", cluster_table.markdown(found))


def _print_table(heads: Sequence[str], lines: Sequence[Sequence[str]], title: str = "") -> None:
    table = Table(*heads, title=title or None, title_justify="left")
    for line in lines:
        table.add_row(*line)
    console.print(table)


def _report(figures: dict[str, object], as_json: Path | None) -> None:
    for name, value in figures.items():
        console.print(f"{name}: {value}", highlight=False)
    if as_json:
        as_json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
