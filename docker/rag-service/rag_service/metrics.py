"""What Prometheus reads at /metrics: HTTP by route, the stages of an answer, the documents, the dependencies, the process.

Names follow https://prometheus.io/docs/practices/naming/: base units, counters end in _total.
"""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, disable_created_metrics

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
STAGES = ("embed", "search", "generate")
ANSWERED_BY = ("model", "quote", "none")
DEPENDENCIES = ("chroma", "inference")


class Metrics:
    """All series of one service, in a registry of their own; those whose labels are known are there from the start."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each, which nothing here reads
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.http_requests = Counter(
            "http_requests", "HTTP requests answered.", ("method", "route", "status"), registry=self.registry
        )
        self.http_seconds = Histogram(
            "http_request_duration_seconds",
            "Time from request to the end of its reply.",
            ("route", "status"),
            registry=self.registry,
            buckets=SECONDS,
        )
        self.stage_seconds = Histogram(
            "rag_stage_duration_seconds",
            "Time a stage of an answer took.",
            ("stage",),
            registry=self.registry,
            buckets=SECONDS,
        )
        self.answers = Counter(
            "rag_answers", "Answers given, by who gave them.", ("answered_by",), registry=self.registry
        )
        self.documents = Gauge("rag_documents", "Documents in the collection.", registry=self.registry)
        self.chunks = Gauge("rag_chunks", "Passages in the collection.", registry=self.registry)
        self.dependency_up = Gauge(
            "rag_dependency_up", "1 while a dependency answers.", ("dependency",), registry=self.registry
        )
        self.cache_requests = Counter(
            "rag_cache_requests", "Look-ups of an answer in the cache.", ("result",), registry=self.registry
        )
        for stage in STAGES:
            self.stage_seconds.labels(stage)
        for who in ANSWERED_BY:
            self.answers.labels(who)
        for dependency in DEPENDENCIES:
            self.dependency_up.labels(dependency)
        for result in ("hit", "miss", "error"):
            self.cache_requests.labels(result)
