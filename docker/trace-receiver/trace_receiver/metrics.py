"""What Prometheus reads at /metrics: what came, what was kept, what was not and why, and the process itself."""

from collections import Counter
from collections.abc import Iterable

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from trace_receiver.store import Store


class Metrics(Collector):
    """All series of one receiver, in a registry of their own, put together when somebody reads them."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.received: Counter[str] = Counter({"otlp": 0, "syslog": 0})
        """Spans that came, by the way they came."""
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.registry.register(self)

    def collect(self) -> Iterable[Metric]:
        """See prometheus_client."""
        received = CounterMetricFamily("trace_receiver_spans_received", "Spans that came.", labels=["source"])
        for source, number in self.received.items():
            received.add_metric([source], number)
        dropped = CounterMetricFamily(
            "trace_receiver_spans_dropped", "Spans that were not kept, or not for longer, by reason.", labels=["reason"]
        )
        for reason in ("evicted", "malformed", "too_many_spans", "trace_too_large"):
            dropped.add_metric([reason], self._store.dropped[reason])
        yield received
        yield dropped
        yield GaugeMetricFamily("trace_receiver_traces", "Traces that are kept.", len(self._store))
        yield GaugeMetricFamily("trace_receiver_spans", "Spans that are kept.", self._store.spans)
        yield GaugeMetricFamily(
            "trace_receiver_spans_bytes", "Memory of the spans that are kept, about.", self._store.size
        )
