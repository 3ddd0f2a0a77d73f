"""Measuring: load, statistics, plots, and the benchmarks behind the figures in the documents."""

from course_lib.bench.latency import Latencies, measure
from course_lib.bench.plots import plot_latencies, plot_layers, plot_load, plot_metrics, plot_timeline, plot_trace
from course_lib.bench.rollout_plot import plot_rollout
from course_lib.steady_load import SteadyLoad

__all__ = [
    "Latencies", "SteadyLoad", "measure", "plot_latencies", "plot_layers", "plot_load", "plot_metrics", "plot_rollout",
    "plot_timeline", "plot_trace",
]  # fmt: skip
