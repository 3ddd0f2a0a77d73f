"""Pictures of what was measured. Colours keep their meaning for the colour-blind (Okabe and Ito's palette)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure

from course_lib.bench.latency import Latencies
from course_lib.steady_load import SteadyLoad

if TYPE_CHECKING:
    from course_lib.cluster import Timeline
    from course_lib.images.comparison import Comparison

PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#999999")
_MB = 1_000_000


def plot_layers(found: Comparison) -> Figure:
    """One bar a layer, both images on one scale, in the order they were built; layers under a megabyte are left out."""
    from course_lib.images.buildkit import shorten

    panels = []
    for name, layers in (("naive", found.before_layers), ("optimised", found.after_layers)):
        panels.append((name, [layer for layer in layers if layer.size >= _MB], sum(layer.size for layer in layers)))
    rows = [len(shown) for _, shown, _ in panels]
    figure = Figure(figsize=(10, 0.42 * sum(rows) + 1.6), layout="constrained")
    for axes, (name, shown, total), colour in zip(
        figure.subplots(2, 1, sharex=True, height_ratios=rows), panels, (PALETTE[1], PALETTE[0]), strict=True
    ):
        axes.barh(range(len(shown)), [layer.size / _MB for layer in shown], color=colour, height=0.7)
        for row, layer in enumerate(shown):
            axes.text(layer.size / _MB, row, f" {layer.size / _MB:,.0f}", va="center", fontsize=9)
        axes.set_yticks(
            range(len(shown)), [shorten(layer.instruction, 52) for layer in shown], fontsize=8, family="monospace"
        )
        axes.invert_yaxis()
        axes.set_title(f"{name}: {total / _MB:,.0f} MB", loc="left", fontweight="bold", fontsize=11)
        axes.spines[["top", "right"]].set_visible(False)
        axes.margins(x=0.1)
        axes.set_xlabel("MB, uncompressed" if name == "optimised" else "")
    return figure


def plot_latencies(found: Latencies, title: str) -> Figure:
    """A histogram of answer times with the quantiles people agree on as lines."""
    figure = Figure(figsize=(7, 3))
    axes = figure.subplots()
    axes.hist(found.milliseconds, bins=40, color=PALETTE[4])
    for q, colour in ((0.5, PALETTE[0]), (0.95, PALETTE[1]), (0.99, PALETTE[5])):
        axes.axvline(found.quantile(q), color=colour, label=f"p{int(q * 100)}: {found.quantile(q):.1f} ms")
    axes.set_xlabel("milliseconds from request to answer")
    axes.set_ylabel("requests")
    axes.set_title(f"{title}: {found.per_second:.0f} requests/s from {found.clients} clients")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def plot_load(found: SteadyLoad, events: Mapping[str, float]) -> Figure:
    """Each request as a dot, when it began against how long it took; lost ones apart, events as lines.

    Args:
        events: what happened, and at which second of the load.
    """
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    axes = figure.subplots()
    good = [one for one in found.sent if not one.lost]
    axes.scatter([s.began for s in good], [s.seconds * 1000 for s in good], s=8, color=PALETTE[0], label="answered")
    if found.lost:
        axes.scatter(
            [s.began for s in found.lost],
            [s.seconds * 1000 for s in found.lost],
            s=24,
            marker="x",
            color=PALETTE[5],
            label="lost",
        )
    for what, second in events.items():
        axes.axvline(second, color=PALETTE[1], linestyle="--")
        axes.annotate(
            what,
            (second, 0),
            xycoords=("data", "axes fraction"),
            xytext=(4, 6),
            textcoords="offset points",
            fontsize=9,
        )
    axes.set_yscale("log")
    axes.set_xlabel("seconds since the load began")
    axes.set_ylabel("milliseconds to the answer")
    axes.set_title(f"{len(found.sent)} requests at {found.rate:g}/s, {len(found.lost)} lost", loc="left", fontsize=11)
    axes.legend(frameon=False, loc="upper right")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def plot_timeline(found: Timeline, load: SteadyLoad) -> Figure:
    """Three panels over one time: requests offered, CPU against its target, replicas wanted and ready."""
    frame, offset = found.frame(), load.started - found.started
    began = np.array([one.began + offset for one in load.sent])
    seconds = np.arange(0, np.ceil(frame["at"].max()) + 1)
    figure = Figure(figsize=(9, 5.4), layout="constrained")
    offered, cpu, replicas = figure.subplots(3, 1, sharex=True)
    offered.stairs(np.histogram(began, seconds)[0], seconds, color=PALETTE[0], fill=True)
    offered.set_ylabel("requests/s")
    cpu.plot(frame["at"], frame["cpu"], color=PALETTE[5], drawstyle="steps-post", label="measured")
    cpu.axhline(frame["target"].iloc[-1], color=PALETTE[7], linestyle="--", label="target")
    cpu.set_ylabel("CPU, % of request")
    # An autoscaler that has not looked yet wants 0.
    replicas.plot(
        frame["at"],
        frame["desired"].where(frame["desired"] > 0),
        color=PALETTE[1],
        drawstyle="steps-post",
        label="wanted",
    )
    replicas.plot(frame["at"], frame["ready"], color=PALETTE[2], drawstyle="steps-post", label="ready")
    replicas.set_ylabel("replicas")
    replicas.set_xlabel("seconds")
    for axes in (offered, cpu, replicas):
        axes.set_ylim(bottom=0)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in (cpu, replicas):
        axes.legend(frameon=False, loc="upper right")
    return figure


def plot_trace(spans: pd.DataFrame) -> Figure:
    """A waterfall: one bar a span, in the order in which they began, a colour a service.

    Args:
        spans: columns service, name, start_ms, duration_ms.
    """
    services = list(dict.fromkeys(spans["service"]))
    figure = Figure(figsize=(9, 0.36 * len(spans) + 1.1), layout="constrained")
    axes = figure.subplots()
    colours = [PALETTE[services.index(service) % len(PALETTE)] for service in spans["service"]]
    # A span of no length is still one: it gets a hair's breadth.
    widths = np.maximum(spans["duration_ms"], (spans["start_ms"] + spans["duration_ms"]).max() / 400)
    axes.barh(range(len(spans)), widths, left=spans["start_ms"], color=colours, height=0.7)
    for row, (start, width, duration) in enumerate(zip(spans["start_ms"], widths, spans["duration_ms"], strict=True)):
        axes.text(start + width, row, f" {duration:.1f} ms", va="center", fontsize=8)
    axes.set_yticks(
        range(len(spans)),
        [f"{service}: {name}" for service, name in zip(spans["service"], spans["name"], strict=True)],
        fontsize=8,
    )
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set_xlabel("milliseconds since the request came in")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def plot_metrics(found: Mapping[str, tuple[pd.DataFrame, str]]) -> Figure:
    """Panels of lines over time, two in a row.

    Args:
        found: by title, a data frame with a column a line and times as its index, and the unit.
    """
    rows = (len(found) + 1) // 2
    figure = Figure(figsize=(11, 2.5 * rows), layout="constrained")
    panels = figure.subplots(rows, 2, sharex=True, squeeze=False)
    for axes, (title, (frame, unit)) in zip(panels.flat, found.items(), strict=False):
        for number, name in enumerate(frame.columns):
            axes.plot(frame.index, frame[name], label=name, color=PALETTE[number % len(PALETTE)], linewidth=1.6)
        axes.set_title(title, loc="left", fontsize=10, fontweight="bold")
        axes.set_ylabel(unit, fontsize=9)
        axes.set_ylim(bottom=0)
        axes.tick_params(labelsize=8)
        locator = AutoDateLocator(maxticks=6)
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
        axes.spines[["top", "right"]].set_visible(False)
        if len(frame.columns):
            axes.legend(frameon=False, fontsize=8)
    for axes in panels.flat[len(found) :]:
        axes.set_visible(False)
    return figure
