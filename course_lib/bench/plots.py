"""Pictures of what was measured. Colours keep their meaning for the colour-blind (Okabe and Ito's palette)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from course_lib.bench.latency import Latencies

if TYPE_CHECKING:
    from course_lib.images.comparison import Comparison

_PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#999999")
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
        figure.subplots(2, 1, sharex=True, height_ratios=rows), panels, (_PALETTE[1], _PALETTE[0]), strict=True
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
    axes.hist(found.milliseconds, bins=40, color=_PALETTE[4])
    for q, colour in ((0.5, _PALETTE[0]), (0.95, _PALETTE[1]), (0.99, _PALETTE[5])):
        axes.axvline(found.quantile(q), color=colour, label=f"p{int(q * 100)}: {found.quantile(q):.1f} ms")
    axes.set_xlabel("milliseconds from request to answer")
    axes.set_ylabel("requests")
    axes.set_title(f"{title}: {found.per_second:.0f} requests/s from {found.clients} clients")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    return figure
