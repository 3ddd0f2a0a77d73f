"""Measuring: load, statistics, plots, and the benchmarks behind the figures in the documents."""

from course_lib.bench.latency import Latencies, measure
from course_lib.bench.plots import plot_latencies, plot_layers

__all__ = ["Latencies", "measure", "plot_latencies", "plot_layers"]
