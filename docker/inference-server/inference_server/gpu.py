"""GPU use and memory for /metrics, where there is an NVIDIA GPU and its library for Python (nvidia-ml-py, which GPU images bring)."""

import importlib
import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

log = logging.getLogger("inference_server.gpu")


def collector() -> Collector | None:
    """What reads the GPUs at each scrape, or None where there is nothing to read."""
    try:
        nvml = importlib.import_module("pynvml")
        nvml.nvmlInit()
        return GpuCollector(nvml) if nvml.nvmlDeviceGetCount() else None
    except ImportError:
        return None
    except Exception as error:  # noqa: BLE001 (NVMLError exists only where pynvml does)
        log.info("no GPU metrics", extra={"fields": {"reason": str(error)}})
        return None


class GpuCollector(Collector):
    """One line a GPU and figure. What a GPU does not tell is left out: a DGX Spark has no memory of its own to report."""

    def __init__(self, nvml: Any) -> None:
        self._nvml = nvml

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """See prometheus_client."""
        nvml = self._nvml
        use = GaugeMetricFamily("gpu_utilization_ratio", "Share of time a kernel ran, 0 to 1.", labels=["gpu"])
        used = GaugeMetricFamily("gpu_memory_used_bytes", "GPU memory in use by all processes.", labels=["gpu"])
        total = GaugeMetricFamily("gpu_memory_bytes", "GPU memory there is.", labels=["gpu"])
        for index in range(nvml.nvmlDeviceGetCount()):
            gpu = nvml.nvmlDeviceGetHandleByIndex(index)
            with self._unless_it_is_silent():
                use.add_metric([str(index)], nvml.nvmlDeviceGetUtilizationRates(gpu).gpu / 100)
            with self._unless_it_is_silent():
                memory = nvml.nvmlDeviceGetMemoryInfo(gpu)
                used.add_metric([str(index)], memory.used)
                total.add_metric([str(index)], memory.total)
        return [use, used, total]

    @contextmanager
    def _unless_it_is_silent(self) -> Iterator[None]:
        try:
            yield
        except self._nvml.NVMLError as error:
            log.debug("a GPU does not tell", extra={"fields": {"reason": str(error)}})
