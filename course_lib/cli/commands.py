"""The commands without a group: `course setup`, `course run`, `course lab` and their like."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import threading
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from course_lib.cli.screen import console, notes, show_commands
from course_lib.doctor.finding import Finding
from course_lib.errors import CourseError

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode="markdown", help=(
    "From one machine to production: seven labs that deploy a model for real.\n\n"
    "Start with `course doctor`, then `course lab`."
))  # fmt: skip


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

    show_commands()
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
        show_commands()
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
    production: Annotated[
        bool, typer.Option(help="Production instead of development: docker/stack/.env.production.")
    ] = False,
    gpu: Annotated[bool, typer.Option(help="Lay compose.gpu.yaml over it.")] = False,
    replicas: Annotated[int | None, typer.Option(min=1, help="How many inference servers: 1, in production 2.")] = None,
) -> None:
    """Starts the RAG stack of lab 4.4.2, says where it answers, and takes it down at Ctrl-C.

    With --env nothing is started: images and secrets are made, and what is started with the file is yours alone.

    Example: `course stack --replicas 3`
    """
    from course_lib import images, stacks
    from course_lib.stacks.gpu import OVERRIDE

    show_commands()
    values = stacks.env_values(production=production) | ({"INFERENCE_REPLICAS": str(replicas)} if replicas else {})
    found = stacks.course_stack(
        images.stack_variables(),
        short="by-hand" if env else "shell",
        profiles=(values.pop("COMPOSE_PROFILES"),),
        overrides=(OVERRIDE,) if gpu else (),
        variables=values,
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
