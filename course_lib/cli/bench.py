"""`course bench`: the figures in the documents."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from course_lib.cli.screen import console, note, notes, print_table

app = typer.Typer(no_args_is_help=True, help="The figures in the documents, measured again on this machine.")

AsJson = Annotated[Path | None, typer.Option("--json", help="File to write the figures to.")]
Quick = Annotated[bool, typer.Option(help="One short round, to see that it works; the figures mean little.")]
Rounds = Annotated[int, typer.Option(min=1, help="Rounds; a figure is the median of them.")]
Only = Annotated[
    list[str] | None,
    typer.Option(help="Measure only this part, such as kills or rollouts; repeatable. A wrong name lists them."),
]
From = Annotated[Path | None, typer.Option("--from", help="Measure nothing: take the figures from this file.")]
WriteDocs = Annotated[bool, typer.Option("--write-docs", help="Put the figures into COMPARISONS.md.")]


@app.command("image")
def bench_image(
    as_json: AsJson = None,
) -> None:
    """Sizes and rebuild times of the naive and the optimised image.

    Example: `course bench image --json image.json`
    """
    from course_lib.bench import image

    _report(image.figures(), as_json)


@app.command("run")
def bench_run(
    lab: Annotated[str, typer.Argument(help="Lab to run.")] = "4.4.1",
    as_json: AsJson = None,
) -> None:
    """What the runner itself costs: time before the first cell, and share of a run outside cells.

    Example: `course bench run 4.4.1`
    """
    from course_lib.bench import run as bench

    _report(bench.figures(lab), as_json)


@app.command("serve")
def bench_serve(
    as_json: AsJson = None,
    quick: Quick = False,
    rounds: Rounds = 5,
    seconds: Annotated[int, typer.Option(min=1, help="Seconds of load for a figure.")] = 8,
    only: Annotated[
        list[str] | None,
        typer.Option(help="Measure only this server (ours, litserve, bentoml, flask, fastapi); repeatable."),
    ] = None,
    from_: From = None,
    write_docs: WriteDocs = False,
) -> None:
    """The inference server against its own engine without HTTP, LitServe, BentoML, Flask and FastAPI: about 25 minutes.

    Example: `course bench serve --json serve.json`
    """
    from course_lib.bench import serve, serve_table

    if from_:
        found = serve.read(from_)
    else:
        plan = serve.Plan.quick() if quick else serve.Plan(rounds=rounds, seconds=seconds)
        found = serve.figures(plan, only=only, say=note)
    heads, lines = serve_table.rows(found)
    _show(found, [("", heads, lines)])
    _keep(found, as_json)
    if write_docs:
        serve_table.write(found)


@app.command("soak")
def bench_soak(
    as_json: AsJson = None,
    seconds: Annotated[int, typer.Option(min=10, help="Length of the run, warm-up included.")] = 600,
    write_docs: WriteDocs = False,
) -> None:
    """Everything at once against the inference server, rude clients and reloads among it; its memory has to stay flat.

    Exit code 1 where it did not, or where a request failed.

    Example: `course bench soak --seconds 60`
    """
    from course_lib.bench import document, soak

    found = soak.figures(seconds, say=note)
    _report(found, as_json)
    if write_docs:
        document.write("soak", soak.markdown(found))
    if found["failed"] or not found["flat"]:
        raise typer.Exit(1)


@app.command("stack")
def bench_stack(
    as_json: AsJson = None,
    quick: Quick = False,
    rounds: Rounds = 3,
    only: Only = None,
    from_: From = None,
    write_docs: WriteDocs = False,
) -> None:
    """The Compose stack of lab 4.4.2: start, answers, search, and what is lost when replicas die: about a quarter of an hour.

    Example: `course bench stack --json stack.json`
    """
    from course_lib.bench import document, stack, stack_table

    if from_:
        found = stack.read(from_)
    else:
        plan = stack.Plan.quick() if quick else stack.Plan(rounds=rounds)
        found = stack.figures(plan, only=only, say=note)
    _keep(found, as_json)
    _show(found, stack_table.tables(found))
    if write_docs:
        document.write("stack", stack_table.markdown(found))


@app.command("cluster")
def bench_cluster(
    as_json: AsJson = None,
    quick: Quick = False,
    rounds: Annotated[int, typer.Option(min=1, help="Starts, rollouts and accidents of a kind.")] = 3,
    clusters: Annotated[int, typer.Option(min=1, help="Fresh clusters that the autoscaler is tried in.")] = 10,
    only: Only = None,
    from_: Annotated[
        list[Path] | None,
        typer.Option("--from", help="Measure nothing: take the figures from this file; several are put together."),
    ] = None,
    write_docs: WriteDocs = False,
) -> None:
    """The cluster of lab 4.4.5: start, rollouts and accidents under load, autoscaler, what is left: about an hour.

    Example: `course bench cluster --only rollouts --json rollouts.json`
    """
    from course_lib.bench import cluster, cluster_table, document

    if from_:
        found = cluster.read(*from_)
    else:
        plan = cluster.Plan.quick() if quick else cluster.Plan(rounds=rounds, clusters=clusters)
        found = cluster.figures(plan, only=only, say=note, keep=lambda figures: _keep(figures, as_json))
    _keep(found, as_json)
    _show(found, cluster_table.tables(found))
    if write_docs:
        document.write("cluster", cluster_table.markdown(found))


def _report(figures: dict[str, Any], as_json: Path | None) -> None:
    for name, value in figures.items():
        console.print(f"{name}: {value}", highlight=False)
    _keep(figures, as_json)


def _keep(figures: dict[str, Any], as_json: Path | None) -> None:
    if as_json:
        as_json.write_text(json.dumps(figures, indent=2) + "\n")


def _show(found: dict[str, Any], tables: Iterable[tuple[str, Sequence[str], Sequence[Sequence[str]]]]) -> None:
    """The tables, a title each, and under them whether the goals were met."""
    from course_lib.bench import goals

    for title, heads, lines in (*tables, ("", goals.HEADS, goals.lines(found))):
        print_table(heads, lines, title)
    if found["preliminary"]:
        notes.print("Preliminary: a quick run, or a machine with other work on it.")
