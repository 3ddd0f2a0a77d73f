"""What one running server knows about itself: its phase, its models, and how many requests are under way."""

import time
from dataclasses import dataclass, field
from enum import StrEnum

from starlette.requests import Request

from inference_server.clients import Network, read_networks
from inference_server.errors import RequestError
from inference_server.keys import Keys
from inference_server.metrics import Metrics
from inference_server.models import ModelSpec
from inference_server.registry import Model, Registry
from inference_server.settings import Settings
from inference_server.tracing import Exporter

# What platforms ask, often and without a key; Vertex AI where AIP_HEALTH_ROUTE says, too.
PROBES = frozenset({"/health", "/ready", "/metrics", "/ping", "/vertex/health", "/v2/health/live", "/v2/health/ready"})


class Phase(StrEnum):
    """loading -> ready -> leaving -> draining; there is no way back."""

    LOADING = "loading"
    READY = "ready"
    LEAVING = "leaving"  # told to stop, and still answering: SHUTDOWN_DELAY_SECONDS
    DRAINING = "draining"


@dataclass(slots=True)
class Serving:
    """Shared by the contracts and the process around them; touched on the event loop's thread only."""

    settings: Settings
    metrics: Metrics = field(default_factory=Metrics)
    phase: Phase = Phase.LOADING
    loaded: Registry | None = None
    upstream: list[ModelSpec] = field(default_factory=list)  # what ENGINE=openai adds to the models of MODEL_PATH
    waiting_for: str = ""  # why loading takes so long, where it waits for the models to arrive
    retiring: list[Model] = field(default_factory=list)  # replaced or removed, finishing what they run
    started: float = field(default_factory=time.monotonic)
    _begun: int = 0
    _running: dict[int, None] = field(default_factory=dict)
    probes: frozenset[str] = field(init=False)
    keys: Keys = field(init=False)
    proxies: tuple[Network, ...] = field(init=False)
    spans: Exporter | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        """What the settings name is read here. Raises StartError."""
        settings = self.settings
        self.metrics.http_running.set_function(lambda: len(self._running))
        self.probes = PROBES | {settings.aip_health_route} - {""}
        self.keys = Keys(settings.api_keys, settings.api_keys_file)
        self.proxies = read_networks(settings.trusted_proxies)
        if settings.otel_exporter_otlp_endpoint:
            self.spans = Exporter(
                settings.otel_exporter_otlp_endpoint, settings.otel_service_name, self.metrics.spans_dropped
            )

    def begin(self) -> int:
        """Count a request in; returns its number for ``end``."""
        self._begun += 1
        self._running[self._begun] = None
        return self._begun

    def end(self, number: int) -> None:
        """Count it out again."""
        del self._running[number]

    @property
    def in_flight(self) -> int:
        """Requests under way."""
        return len(self._running)

    @property
    def newest(self) -> int:
        """The number of the request that came last."""
        return self._begun

    def ended_up_to(self, number: int) -> bool:
        """Whether every request that came until that one has its answer. The oldest stands first: dicts keep their order."""
        return next(iter(self._running), number + 1) > number

    @property
    def models(self) -> Registry:
        """The loaded models. Raises RequestError 503 while there are none."""
        if self.loaded is None:
            raise RequestError(503, "The models are still loading: try again in a moment.", "loading", retry_after=1)
        return self.loaded

    def trouble(self) -> str:
        """Why no work should be sent now: the phase, or that an engine is unwell; empty when all is well."""
        if self.phase is not Phase.READY:
            return self.phase
        return "unwell" if self.loaded and (self.loaded.unwell() or self.loaded.away()) else ""


def serving(request: Request) -> Serving:
    """The Serving of the app that got this request."""
    found: Serving = request.app.state.serving
    return found


def answered_by(request: Request, model: Model) -> None:
    """Note which model answers: the reply's headers and the log line name it."""
    request.state.model = model.spec
