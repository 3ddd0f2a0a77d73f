"""`course bench`: the figures in the documents."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from course_lib.cli.screen import note, notes, print_table, report

app = typer.Typer(no_args_is_help=True, help="The figures in the documents, measured again on this machine.")


@app.command("image")
def bench_image(
    as_json: Annotated[Path | None, typer.Option("--json", help="File to write the figures to.")] = None,
) -> None:
    """Sizes and rebuild times of the naive and the optimised image.

    Example: `course bench image --json image.json`
    """
    from course_lib.bench import image

    report(image.figures(), as_json)


@app.command("run")
def bench_run(
    lab: Annotated[str, typer.Argument(help="Lab to run.")] = "4.4.1",
    as_json: Annotated[Path | None, typer.Option("--json", help="File to write the figures to.")] = None,
) -> None:
    """What the runner itself costs: time before the first cell, and share of a run outside cells.

    Example: `course bench run 4.4.1`
    """
    from course_lib.bench import run as bench

    report(bench.figures(lab), as_json)


@app.command("serve")
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
        found = serve.figures(plan, only=only, say=note)
    heads, lines = serve_table.rows(found)
    for columns, body in ((heads, lines), (goals.HEADS, goals.lines(found))):
        print_table(columns, body)
    if found["preliminary"]:
        notes.print("Preliminary: a quick run, or a machine with other work on it.")
    if as_json:
        as_json.write_text(json.dumps(found, indent=2) + "\n")
    if write_docs:
        serve_table.write(found)


@app.command("soak")
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

    found = soak.figures(seconds, say=note)
    report(found, as_json)
    if write_docs:
        document.write("soak", soak.markdown(found))
    if found["failed"] or not found["flat"]:
        raise typer.Exit(1)


@app.command("stack")
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
        found = stack.figures(plan, only=only, say=note)
    if as_json:
        as_json.write_text(json.dumps(found, indent=2) + "\n")
    for title, heads, lines in (*stack_table.tables(found), ("", goals.HEADS, goals.lines(found))):
        print_table(heads, lines, title)
    if found["preliminary"]:
        notes.print("Preliminary: a quick run, or a machine with other work on it.")
    if write_docs:
        document.write("stack", stack_table.markdown(found))


@app.command("cluster")
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
            say=note,
            keep=keep,
        )
    keep(found)
    for title, heads, lines in (*cluster_table.tables(found), ("", goals.HEADS, goals.lines(found))):
        print_table(heads, lines, title)
    if found["preliminary"]:
        notes.print("Preliminary: a quick run, or a machine with other work on it.")
    if write_docs:
        document.write("cluster", cluster_table.markdown(found))
