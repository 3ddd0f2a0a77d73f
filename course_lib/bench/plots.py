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
    """Two bars, one an image, each cut into its layers; small layers are drawn together."""
    from course_lib.images.comparison import shorten

    figure = Figure(figsize=(9, 3.6))
    axes = figure.subplots()
    for row, (name, layers) in enumerate((("before", found.before_layers), ("after", found.after_layers))):
        total = sum(layer.size for layer in layers)
        large = [layer for layer in layers if layer.size >= 0.02 * total]
        left = 0.0
        for number, layer in enumerate(large):
            width = layer.size / _MB
            axes.barh(row, width, left=left, color=_PALETTE[number % len(_PALETTE)], edgecolor="white")
            if width > 0.08 * found.before_bytes / _MB:
                axes.text(
                    left + width / 2,
                    row,
                    f"{shorten(layer.instruction, 24)}\n{width:.0f} MB",
                    ha="center",
                    va="center",
                    fontsize=7,
                )
            left += width
        rest = (total - sum(layer.size for layer in large)) / _MB
        axes.barh(row, rest, left=left, color="#dddddd")
        axes.text(left + rest + 8, row, f"{total / _MB:,.0f} MB", va="center", fontweight="bold")
        axes.text(0, row - 0.46, name, ha="left", va="bottom", fontsize=9)
    axes.set_yticks([])
    axes.invert_yaxis()
    axes.set_xlim(0, found.before_bytes / _MB * 1.15)
    axes.set_xlabel("size in MB, uncompressed")
    axes.set_title(f"The optimised image is {found.ratio:.0%} of the naive one")
    axes.spines[["top", "right", "left"]].set_visible(False)
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
