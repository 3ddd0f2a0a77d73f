"""What Prometheus reads at /metrics: HTTP by route, inference by model and version, and the process itself.

Names follow https://prometheus.io/docs/practices/naming/: base units, counters end in _total.
"""

from collections import defaultdict
from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, disable_created_metrics
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector

from inference_server import gpu

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
TOKEN_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
BATCH = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
MODEL = ("model", "version")


class BatchSizes(Collector):
    """A histogram that is put together when somebody reads it: an engine only counts, because it does so at every token."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str], defaultdict[int, int]] = {}

    def of(self, model: str, version: str) -> defaultdict[int, int]:
        """Where the engines of one version count; one that replaces another goes on from there."""
        return self._counts.setdefault((model, version), defaultdict(int))

    def collect(self) -> Iterable[HistogramMetricFamily]:
        """See prometheus_client."""
        family = HistogramMetricFamily(
            "inference_batch_size", "Texts or rows computed together, each time the model ran.", labels=MODEL
        )
        for labels, counts in self._counts.items():
            sizes = list(counts.items())  # in one go: the engine's thread goes on counting
            buckets = [(f"{top:.1f}", sum(times for size, times in sizes if size <= top)) for top in BATCH]
            buckets.append(("+Inf", sum(times for _, times in sizes)))
            family.add_metric(list(labels), buckets, sum(size * times for size, times in sizes))
        return [family]


class Metrics:
    """All series of one server, in a registry of their own."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each, which nothing here reads
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        if gpus := gpu.collector():
            self.registry.register(gpus)
        self.batch_sizes = BatchSizes()
        self.registry.register(self.batch_sizes)
        self.http_requests = self._counter("http_requests", "HTTP requests answered.", "method", "route", "status")
        self.http_seconds = self._histogram(
            "http_request_duration_seconds", "Time from request to the end of its reply.", "route"
        )
        self.http_running = Gauge(
            "http_requests_in_flight", "HTTP requests being answered now.", registry=self.registry
        )
        self.requests = self._counter("inference_requests", "Requests given to a model.", *MODEL)
        self.errors = self._counter("inference_errors", "Requests a model did not finish, by reason.", *MODEL, "reason")
        self.seconds = self._histogram("inference_duration_seconds", "Time a model took for a whole answer.", *MODEL)
        self.first_token = self._histogram(
            "inference_time_to_first_token_seconds", "Time from request to the first piece of text.", *MODEL
        )
        self.token_seconds = Histogram(
            "inference_time_per_output_token_seconds",
            "Time from one piece of text to the next, mean of an answer.",
            MODEL,
            registry=self.registry,
            buckets=TOKEN_SECONDS,
        )
        self.prompt_tokens = self._counter("inference_prompt_tokens", "Tokens read.", *MODEL)
        self.cached_tokens = self._counter(
            "inference_cached_prompt_tokens", "Tokens read that an earlier prompt had computed.", *MODEL
        )
        self.completion_tokens = self._counter("inference_completion_tokens", "Tokens written.", *MODEL)
        self.predictions = self._counter(
            "inference_predictions", "Rows classified, by the class they got.", *MODEL, "predicted_class"
        )
        self.running = self._gauge("inference_running_requests", "Requests a model is working on now.", *MODEL)
        self.waiting = self._gauge("inference_waiting_requests", "Requests that wait for a model now.", *MODEL)
        self.spans_dropped = self._counter("trace_spans_dropped", "Spans that no collector took.")
        self.info = self._gauge("inference_model_info", "1 for each loaded model version.", *MODEL, "kind", "engine")
        self.loads = self._counter("inference_model_loads", "Times a model version was loaded.", *MODEL)
        self.load_failures = self._counter(
            "inference_model_load_failures", "Times a model version could not be loaded while running.", *MODEL
        )
        self.share = self._gauge(
            "inference_traffic_share_ratio", "Part of the requests without a version that a version is to get.", *MODEL
        )
        self.fallbacks = self._counter(
            "inference_traffic_fallbacks", "Requests a version could not take and another answered.", *MODEL, "reason"
        )
        self.traffic_failures = self._counter(
            "inference_traffic_load_failures", "Times TRAFFIC_FILE changed and could not be taken over."
        )

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(name, text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, *labels: str) -> Histogram:
        return Histogram(name, text, labels, registry=self.registry, buckets=SECONDS)
