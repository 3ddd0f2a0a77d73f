"""The models that are loaded: found by name and version, and counted whichever contract asks."""

import logging
import time
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from typing import Any

from inference_server import traffic
from inference_server.engines import load
from inference_server.engines.base import Delta, Embed, Floats, Generate, Predict, Prompt, Sampling
from inference_server.errors import ModelRefused, RequestError, StartError
from inference_server.metrics import Metrics
from inference_server.models import AnswerKind, Kind, ModelSpec, Stamp, stamp, version_key
from inference_server.settings import Settings
from inference_server.traffic import Traffic

log = logging.getLogger("inference_server")


class LoadedModel:
    """One version of one model with its engine; every use of it leaves its metrics."""

    engine: Generate | Predict | Embed

    def __init__(self, spec: ModelSpec, engine: Generate | Predict | Embed, metrics: Metrics) -> None:
        self.spec = spec
        self.metrics = metrics
        self.stamp: Stamp = {}  # the files it was loaded from
        self.labels = (spec.name, spec.version)
        metrics.info.labels(*self.labels, spec.kind, spec.engine).set(1)
        metrics.loads.labels(*self.labels).inc()
        engine.batch_sizes = metrics.batch_sizes.of(*self.labels)
        # Looked up once: by name it takes a lock and a tuple of strings each time. And present from the start: a rate needs a zero.
        self._requests = metrics.requests.labels(*self.labels)
        self._seconds = metrics.seconds.labels(*self.labels)

    @property
    def well(self) -> bool:
        """Whether it can answer."""
        return self.engine.vitals().well

    def gone(self) -> None:
        """Take away the gauges of a version that is not loaded any more; its counters stay what they are."""
        labels = self.labels
        self.metrics.info.remove(*labels, self.spec.kind, self.spec.engine)
        for gauge in (self.metrics.running, self.metrics.waiting):
            gauge.remove(*labels)

    def failed(self, error: BaseException) -> None:
        """Count a request that this model did not finish."""
        reason = error.code if isinstance(error, RequestError) else "cancelled"
        self.metrics.errors.labels(*self.labels, reason).inc()


class TextModel(LoadedModel):
    """A loaded *generate* model."""

    def __init__(self, spec: ModelSpec, engine: Generate, metrics: Metrics) -> None:
        super().__init__(spec, engine, metrics)
        self.engine: Generate = engine
        self._first_token = metrics.first_token.labels(*self.labels)
        self._token_seconds = metrics.token_seconds.labels(*self.labels)
        self._prompt_tokens = metrics.prompt_tokens.labels(*self.labels)
        self._cached_tokens = metrics.cached_tokens.labels(*self.labels)
        self._completion_tokens = metrics.completion_tokens.labels(*self.labels)

    def chat(self, messages: list[dict[str, Any]], sampling: Sampling) -> AsyncGenerator[Delta, None]:
        """The answer to a chat as a stream."""
        return self.complete([messages], sampling)

    async def complete(self, prompts: list[Prompt], sampling: Sampling) -> AsyncGenerator[Delta, None]:
        """All answers as one stream; the first delta is awaited by whoever asks, so that an early error still gets its status code."""
        start = time.perf_counter()
        self._requests.inc()
        first, whole = 0.0, False
        try:
            async with aclosing(await self.engine.generate(prompts, sampling)) as stream:
                async for delta in stream:
                    if not first:
                        first = time.perf_counter()
                        self._first_token.observe(first - start)
                    if delta.usage:
                        if delta.usage.completion_tokens > 1:
                            pace = (time.perf_counter() - first) / (delta.usage.completion_tokens - 1)
                            self._token_seconds.observe(pace)
                        self._prompt_tokens.inc(delta.usage.prompt_tokens)
                        self._cached_tokens.inc(delta.usage.cached_tokens)
                        self._completion_tokens.inc(delta.usage.completion_tokens)
                        self._seconds.observe(time.perf_counter() - start)
                        whole = True
                    yield delta
        except BaseException as error:
            if not whole:  # a reader who has the last piece may close the stream
                self.failed(error)
            raise


class ClassModel(LoadedModel):
    """A loaded *predict* model."""

    def __init__(self, spec: ModelSpec, engine: Predict, metrics: Metrics) -> None:
        super().__init__(spec, engine, metrics)
        self.engine: Predict = engine
        self._counted: dict[int, Any] = {}

    async def classify(self, rows: Floats) -> Floats:
        """Probabilities, one line a row."""
        start = time.perf_counter()
        self._requests.inc()
        try:
            scores = await self.engine.predict(rows)
        except BaseException as error:
            self.failed(error)
            raise
        self._seconds.observe(time.perf_counter() - start)
        for best in scores.argmax(-1).tolist():
            if best not in self._counted:
                self._counted[best] = self.metrics.predictions.labels(*self.labels, self.engine.labels[best])
            self._counted[best].inc()
        return scores


class EmbedModel(LoadedModel):
    """A loaded *embed* model."""

    def __init__(self, spec: ModelSpec, engine: Embed, metrics: Metrics) -> None:
        super().__init__(spec, engine, metrics)
        self.engine: Embed = engine

    async def embed(self, texts: list[str]) -> tuple[Floats, int]:
        """(vectors of length 1, one line a text; tokens read)."""
        start = time.perf_counter()
        self._requests.inc()
        try:
            vectors, tokens = await self.engine.embed(texts)
        except BaseException as error:
            self.failed(error)
            raise
        self._seconds.observe(time.perf_counter() - start)
        self.metrics.prompt_tokens.labels(*self.labels).inc(tokens)
        return vectors, tokens


Model = TextModel | ClassModel | EmbedModel
MADE: dict[Kind, Any] = {"generate": TextModel, "predict": ClassModel, "embed": EmbedModel}
ANSWERS_WITH = {"generate": "text", "predict": "classes", "embed": "vectors"}
WAYS = {
    "generate": "POST /v1/chat/completions, or /predict with a text",
    "predict": "POST /predict with rows",
    "embed": "POST /v1/embeddings",
}


def open_model(spec: ModelSpec, settings: Settings, metrics: Metrics) -> Model:
    """Load one version. Raises ModelRefused, also when its files change meanwhile: half of one copy, half of another is neither."""
    before = stamp(spec)
    engine: Any = load(spec, settings)
    try:
        if stamp(spec) != before:
            raise ModelRefused(
                f"{spec.folder} changed while it was being loaded: copy it elsewhere first, then mv it here."
            )
    except ModelRefused:
        engine.close()
        raise
    model: Model = MADE[spec.kind](spec, engine, metrics)
    model.stamp = before
    return model


class Registry:
    """Every loaded model version. Without a name: the first of its kind; without a version: by traffic split, else the highest.

    The list of models never changes: a reload makes a new registry, so that a request sees the old set or the new one.
    """

    def __init__(self, models: Iterable[Model], split: Traffic | None = None) -> None:
        self.models: list[Model] = sorted(models, key=lambda model: (model.spec.name, version_key(model.spec.version)))
        self.traffic: Traffic = split or {}

    @classmethod
    def load(cls, specs: list[ModelSpec], settings: Settings, metrics: Metrics) -> "Registry":
        """Load every spec. Raises ModelRefused; what was loaded before is closed again."""
        registry = cls([])
        try:
            for spec in specs:
                registry.models.append(open_model(spec, settings, metrics))
        except BaseException:
            registry.close()
            raise
        return registry

    def pick(self, kind: Kind | None, name: str | None = None, version: str | None = None) -> Model:
        """The model a request asks for, without ``kind`` one of those that /predict knows; ``name`` may be ``name:version``. Raises RequestError 404."""
        if name and ":" in name:
            name, _, tag = name.partition(":")
            if version and version != tag:
                raise RequestError(
                    422,
                    f"The model says version {tag} and the version field {version}: choose one.",
                    "two_versions",
                    "version",
                )
            version = tag
        fitting = [model for model in self.models if (model.spec.kind == kind if kind else model.spec.kind != "embed")]
        if not name:
            if not fitting:
                what = ANSWERS_WITH[kind or "predict"]
                raise RequestError(
                    404,
                    f"No loaded model answers with {what}; loaded: {self._listed()}.",
                    "model_not_found",
                    "model",
                )
            name = fitting[0].spec.name
        named = [model for model in self.models if model.spec.name == name]
        if not named:
            raise RequestError(
                404,
                f"The model {name!r} is not loaded; loaded: {self._listed()}.",
                "model_not_found",
                "model",
            )
        if version is None:
            chosen = self._by_traffic(name, named)
        else:
            match = next((model for model in named if model.spec.version == version), None)
            if match is None:
                has = ", ".join(model.spec.version for model in named)
                raise RequestError(
                    404, f"{name} has no version {version!r}; loaded: {has}.", "model_not_found", "version"
                )
            chosen = match
        if chosen.spec.kind != kind and (kind or chosen.spec.kind == "embed"):
            raise RequestError(
                422,
                f"{chosen.spec.id} can't answer this kind of request: use {WAYS[chosen.spec.kind]}.",
                "wrong_kind",
                "model",
            )
        return chosen

    def answerer(
        self, kind: AnswerKind | None, name: str | None = None, version: str | None = None
    ) -> TextModel | ClassModel:
        """The model for what every contract but embeddings asks: a text or a class; ``kind`` None where only its name says which."""
        model = self.pick(kind, name, version)
        assert not isinstance(model, EmbedModel)  # pick gives those to who asks for them only
        return model

    def text(self, name: str | None = None, version: str | None = None) -> TextModel:
        """A *generate* model."""
        model = self.pick("generate", name, version)
        assert isinstance(model, TextModel)
        return model

    def embedder(self, name: str | None = None) -> EmbedModel:
        """An *embed* model."""
        model = self.pick("embed", name)
        assert isinstance(model, EmbedModel)
        return model

    def _by_traffic(self, name: str, named: list[Model]) -> Model:
        """The version a request that names none gets: the one its user has in the split.

        Where that one is not loaded or not well, it is the default, else the highest that is well; and a metric counts it.
        """
        split = self.traffic.get(name)
        if split is None:
            return named[-1]
        versions = {model.spec.version: model for model in named}
        wanted = split.version(traffic.place(name))
        chosen = versions.get(wanted)
        if chosen and chosen.well:
            return chosen
        reason = "unwell" if chosen else "not_loaded"
        named[0].metrics.fallbacks.labels(name, wanted, reason).inc()
        ways = [versions.get(split.default), *reversed(named)]
        return next((model for model in ways if model and model.well), chosen or named[-1])

    def versions(self, name: str) -> list[str]:
        """Every loaded version of a model."""
        return [model.spec.version for model in self.models if model.spec.name == name]

    def is_default(self, model: Model) -> bool:
        """Whether this version answers for its model when nothing else is said: the split's default, without a split the highest."""
        named = [other for other in self.models if other.spec.name == model.spec.name]
        split = self.traffic.get(model.spec.name)
        default = next((other for other in named if split and other.spec.version == split.default), named[-1])
        return default is model

    def share(self, model: Model) -> float:
        """The part of the requests without a version that this one is to get, 0 to 1."""
        split = self.traffic.get(model.spec.name)
        return split.share(model.spec.version) if split else float(self.is_default(model))

    def direct(self, split: Traffic, metrics: Metrics, strict: bool = False) -> None:
        """Take a traffic split over. Raises StartError when ``strict`` and a default is not loaded; what else is missing is logged."""
        loaded = {model.spec.id for model in self.models}
        for name, versions in split.items():
            if strict and f"{name}:{versions.default}" not in loaded:
                raise StartError(
                    f"TRAFFIC has {name}:{versions.default} as a default, and it is not loaded; loaded: {self._listed()}."
                )
        missing = [f"{name}:{version}" for name, versions in split.items() for version in versions.weights]
        if missing := [model for model in missing if model not in loaded]:
            log.warning("traffic for versions that are not loaded", extra={"fields": {"models": missing}})
        self.traffic = split
        metrics.share.clear()
        for name, versions in split.items():
            for version in versions.weights:
                metrics.share.labels(name, version).set(versions.share(version))
        log.info("traffic", extra={"fields": {"split": {name: dict(one.weights) for name, one in split.items()}}})

    def unwell(self) -> list[str]:
        """One sentence for each engine that is dead or stuck."""
        pairs = [(model.spec.id, model.engine.vitals().why) for model in self.models]
        return [f"{name}: {why}" for name, why in pairs if why]

    def away(self) -> list[str]:
        """One sentence for each engine that could answer if something elsewhere did: no reason to restart this server."""
        pairs = [(model.spec.id, model.engine.vitals().away) for model in self.models]
        return [f"{name}: {away}" for name, away in pairs if away]

    def close(self) -> None:
        """Stop every engine."""
        for model in self.models:
            model.engine.close()

    def _listed(self) -> str:
        return ", ".join(model.spec.id for model in self.models) or "none"
