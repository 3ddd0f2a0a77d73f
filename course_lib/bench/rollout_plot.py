"""A rollout as a picture: who answered, how fast, and whether it was right, over one time with what was done when."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from course_lib.bench.plots import PALETTE

if TYPE_CHECKING:
    from course_lib.cluster.strategies import Journal, UserLoad

_NOBODY = "failed or lost"


def frame(load: UserLoad) -> pd.DataFrame:
    """One row a request: began, seconds, who (the version, or that nobody answered), right."""
    return pd.DataFrame(
        [
            {
                "began": one.began,
                "seconds": one.seconds,
                "who": f"version {one.version}" if one.status == 200 else _NOBODY,
                "right": load.right(one),
            }
            for one in load.sent
        ]
    )


def plot_rollout(load: UserLoad, journal: Journal) -> Figure:
    """Three panels over the seconds of a load: requests a second by who answered, time to the answer, share of right answers."""
    found = frame(load)
    seconds = np.arange(0, np.ceil(found["began"].max()) + 1)
    names = sorted(set(found["who"]) - {_NOBODY}) + [_NOBODY] * bool((found["who"] == _NOBODY).any())
    colours = {name: PALETTE[5] if name == _NOBODY else PALETTE[number] for number, name in enumerate(names)}
    figure = Figure(figsize=(10, 6.4), layout="constrained")
    who, fast, right = figure.subplots(3, 1, sharex=True, height_ratios=(3, 3, 2))
    base = np.zeros(len(seconds) - 1)
    for name in names:
        each = found[found["who"] == name]
        top = base + np.histogram(each["began"], seconds)[0]
        who.stairs(top, seconds, baseline=base, fill=True, color=colours[name], label=name)
        fast.scatter(each["began"], each["seconds"] * 1000, s=5, color=colours[name])
        base = top
    who.set_ylabel("requests/s")
    who.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    fast.set_yscale("log")
    fast.yaxis.set_major_formatter("{x:g}")
    fast.yaxis.set_minor_formatter("")
    fast.set_ylabel("ms to the answer")
    share = found.groupby(np.floor(found["began"] / 2))["right"].mean()
    right.plot(share.index * 2 + 1, share.to_numpy() * 100, color=PALETTE[7], marker="o", markersize=3)
    right.set_ylim(0, 104)
    right.set_ylabel("% right")
    right.set_xlabel("seconds since the load began")
    _events(journal.since(load.started), (who, fast, right))
    return figure


def _events(events: list[tuple[float, str]], panels: tuple[Axes, ...]) -> None:
    """A line through all panels for each event, and its words above the first one."""
    told: list[tuple[float, str]] = []
    near = (events[-1][0] - events[0][0]) / 40 if events else 0.0
    for at, what in events:
        for axes in panels:
            axes.axvline(at, color="black", linestyle=":", linewidth=0.9)
        if told and at - told[-1][0] < near:  # two texts on one another are none
            told[-1] = (told[-1][0], f"{told[-1][1]}; {what}")
        else:
            told.append((at, what))
    for at, what in told:
        panels[0].annotate(
            what, (at, 1.02), xycoords=("data", "axes fraction"), fontsize=7.5, rotation=35, ha="left", va="bottom"
        )
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
