"""What Prometheus reads at /metrics: HTTP by route, inference by model and version, and the process itself.

Names follow https://prometheus.io/docs/practices/naming/: base units, counters end in _total.
"""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, disable_created_metrics

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
MODEL = ("model", "version")


class Metrics:
    """All series of one server, in a registry of their own."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each, which nothing here reads
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
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
        self.prompt_tokens = self._counter("inference_prompt_tokens", "Tokens read.", *MODEL)
        self.completion_tokens = self._counter("inference_completion_tokens", "Tokens written.", *MODEL)
        self.predictions = self._counter(
            "inference_predictions", "Rows classified, by the class they got.", *MODEL, "predicted_class"
        )
        self.running = self._gauge("inference_running_requests", "Requests a model is working on now.", *MODEL)
        self.waiting = self._gauge("inference_waiting_requests", "Requests that wait for a model now.", *MODEL)
        self.spans_dropped = self._counter("trace_spans_dropped", "Spans that no collector took.")
        self.info = self._gauge("inference_model_info", "1 for each loaded model version.", *MODEL, "kind", "engine")

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(name, text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, *labels: str) -> Histogram:
        return Histogram(name, text, labels, registry=self.registry, buckets=SECONDS)
