"""New, changed and removed model versions while the server runs, without a lost request; and the wait for the first ones.

A version is loaded beside the old one (for that moment both are in memory), swapped in between two requests, and the old one is closed
when the requests that may have got it have their answers, or after DRAIN_SECONDS. What can't be loaded changes nothing: the old set goes
on, the log says why, and a metric counts it. By polling, a change is acted on when two looks in a row saw the same files, so that a copy
under way is left alone; a signal acts at once.
"""

import asyncio
import hashlib
import logging
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from pathlib import Path
from typing import TypeVar

from inference_server.errors import ModelRefused
from inference_server.models import ModelSpec, Refused, Stamp, find_models, stamp, vanished
from inference_server.registry import Model, Registry, open_model
from inference_server.serving import Phase, Serving
from inference_server.upstream import UpstreamAway, upstream_models

log = logging.getLogger("inference_server.reload")
HASHED_BYTES = 1 << 30  # reading more than that to learn that nothing changed would cost more than loading it
ARRIVAL_SECONDS = 1.0
Found = TypeVar("Found")


def wait_for_models(serving: Serving) -> Registry:
    """The first set of models, for which MODEL_WAIT_SECONDS may be waited. Raises ModelRefused when the time is over.

    A folder that was refused once counts as whole when two looks in a row saw the same files.
    """
    settings = serving.settings
    end = time.monotonic() + settings.model_wait_seconds
    seen: list[Stamp] | None = None

    def load() -> Registry:
        nonlocal seen
        specs = find_models(settings.models_folder(), settings.engine, upstream=serving.upstream)
        stamps = [stamp(spec) for spec in specs]
        arriving, seen = bool(serving.waiting_for) and stamps != seen, stamps
        if arriving:
            raise ModelRefused(f"{settings.models_folder()} is still being written to.")
        return Registry.load(specs, settings, serving.metrics)

    serving.upstream = _until_there(serving, end, lambda: upstream_models(settings))
    return _until_there(serving, end, load)


def _until_there(serving: Serving, end: float, look: Callable[[], Found]) -> Found:
    """What ``look`` finds, asked again until ``end``; for a server upstream, without MODEL_WAIT_SECONDS, as long as it takes."""
    settings = serving.settings
    while True:
        try:
            found = look()
        except (ModelRefused, OSError) as error:
            refusal = error if isinstance(error, ModelRefused) else vanished(settings.models_folder(), error)
            endless = isinstance(error, UpstreamAway) and not settings.model_wait_seconds
            left = ARRIVAL_SECONDS if endless else end - time.monotonic()
            if left <= 0 or serving.phase is not Phase.LOADING:
                waited = f" (MODEL_WAIT_SECONDS={settings.model_wait_seconds:g} are over)"
                raise ModelRefused(f"{refusal}{waited if settings.model_wait_seconds else ''}") from None
            if serving.waiting_for != str(refusal):
                serving.waiting_for = str(refusal)
                log.warning("waiting for the models", extra={"fields": {"reason": str(refusal)}})
            time.sleep(min(ARRIVAL_SECONDS, left))
        else:
            serving.waiting_for = ""
            return found


class Reloader:
    """Watches MODEL_PATH from a thread of its own; the swap itself happens on the event loop's.

    Args:
        models: those that were loaded first; what is in their files is read here, before anybody hears that the server is ready.
    """

    def __init__(self, serving: Serving, loop: asyncio.AbstractEventLoop, models: Iterable[Model]) -> None:
        self._serving = serving
        self._loop = loop
        self._settings = serving.settings
        self._digests: dict[str, tuple[Stamp, str]] = {}
        self._pending: dict[str, Stamp | None] = {}  # differences of the last look, to be acted on when they stay
        self._failed: dict[str, Stamp] = {}
        self._refused: dict[Path, str] = {}
        self._asked = threading.Event()
        self._stopped = False
        self._retirements: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._run, name="reloader", daemon=True)
        for model in models:
            self._remember(model)

    def start(self) -> None:
        """Begin to watch; call when the first models are loaded."""
        self._thread.start()

    def ask(self) -> None:
        """Look now, and take what is there at once: the answer to SIGHUP."""
        log.info("asked to reload")
        self._asked.set()

    def stop(self) -> None:
        """No further look; what one that is under way loads is closed again. Does not wait."""
        self._stopped = True
        self._asked.set()

    @property
    def busy(self) -> bool:
        """Whether the thread is still there, perhaps deep in loading a model."""
        return self._thread.is_alive()

    def _run(self) -> None:
        while not self._stopped:
            asked = self._asked.wait(self._settings.reload_seconds or None)
            self._asked.clear()
            if self._stopped:
                return
            try:
                self._look(asked)
            except Exception:
                self._serving.metrics.load_failures.labels("", "").inc()
                log.exception("bug while reloading")

    def _loaded(self) -> dict[str, Model]:
        return {model.spec.id: model for model in self._serving.models.models}

    def _look(self, asked: bool) -> None:
        """Compare the folder with what is loaded, and act on what differs: first what is new, then what is gone."""
        refused: Refused = {}
        folder = self._settings.models_folder()
        specs: list[ModelSpec] | None = None
        try:
            specs = find_models(folder, self._settings.engine, refused, self._serving.upstream)
        except (ModelRefused, OSError) as error:
            refused = {folder: error if isinstance(error, ModelRefused) else vanished(folder, error)}
        for path, sentence in refused.items():
            if asked or self._refused.get(path) != str(sentence):
                name, version = ("", "") if path == folder else (path.parent.name, path.name)
                self._failure(name, version, sentence)
        self._refused = {path: str(sentence) for path, sentence in refused.items()}
        if specs is None:
            return
        loaded = self._loaded()
        troubled = {path.parent for path in refused} | {
            spec.folder.parent for spec in specs if not self._take(spec, loaded.get(spec.id), asked)
        }
        there = {spec.id for spec in specs}
        for name, model in self._loaded().items():
            # What can't be loaded may be meant to take its place: then it stays.
            if name not in there and model.spec.folder.parent not in troubled and self._settled(name, None, asked):
                self._swap(name, None)

    def _settled(self, name: str, seen: Stamp | None, asked: bool) -> bool:
        """Whether a difference is to be acted on: it is the same as at the last look, or somebody said that now is the time."""
        same = name in self._pending and self._pending[name] == seen
        self._pending[name] = seen
        return asked or same

    def _take(self, spec: ModelSpec, old: Model | None, asked: bool) -> bool:
        """Load a version that is new or changed; False when it can't be loaded (yet), found now or at an earlier look at the same files."""
        now: Stamp = {}
        try:
            now = stamp(spec)
            if self._stopped or (old and (old.stamp == now or self._same_content(spec, old, now))):
                self._pending.pop(spec.id, None)
                return True
            if self._failed.get(spec.id) == now and not asked:
                return False
            if not self._settled(spec.id, now, asked):
                return False
            began = time.perf_counter()
            model = open_model(spec, self._settings, self._serving.metrics)
        except (ModelRefused, OSError) as error:
            self._failed[spec.id] = now
            self._failure(
                spec.name, spec.version, error if isinstance(error, ModelRefused) else vanished(spec.folder, error)
            )
            return False
        self._failed.pop(spec.id, None)
        self._pending.pop(spec.id, None)
        self._swap(spec.id, model)
        seconds = round(time.perf_counter() - began, 3)
        log.info("model loaded", extra={"fields": {"model": spec.id, "replaced": bool(old), "load_seconds": seconds}})
        self._remember(model)
        return True

    def _failure(self, name: str, version: str, error: ModelRefused) -> None:
        self._serving.metrics.load_failures.labels(name, version).inc()
        log.error("models stay as they were", extra={"fields": {"reason": str(error)}})

    def _swap(self, name: str, new: Model | None) -> None:
        """Put one version in another's place, or take one away, on the event loop's thread; returns when that is done."""
        done: Future[None] = Future()

        def exchange() -> None:
            models = self._loaded()
            old = models.pop(name, None)
            if new:
                models[name] = new
            if self._serving.phase is not Phase.READY or not models:
                old = new  # too late for a change, or the last one there is
            else:
                self._serving.loaded = Registry(models.values(), self._serving.models.traffic)
            if old:
                task = self._loop.create_task(self._retire(old))
                self._retirements.add(task)
                task.add_done_callback(self._retirements.discard)
            done.set_result(None)

        try:
            self._loop.call_soon_threadsafe(exchange)
        except RuntimeError:  # the event loop has ended meanwhile
            if new:
                new.engine.close()
        else:
            done.result()

    async def _retire(self, model: Model) -> None:
        """Close a version that nobody can get any more, when everybody who got it is served."""
        serving, last = self._serving, self._serving.newest
        serving.retiring.append(model)
        end = self._loop.time() + self._settings.drain_seconds
        while self._loop.time() < end:
            vitals = model.engine.vitals()
            if serving.ended_up_to(last) and not vitals.running and not vitals.waiting:
                break
            await asyncio.sleep(0.02)
        await asyncio.to_thread(model.engine.close, "this version of the model was replaced or removed")
        serving.retiring.remove(model)
        if model.spec.id not in self._loaded():
            model.gone()
        log.info("model closed", extra={"fields": {"model": model.spec.id}})

    def _remember(self, model: Model) -> None:
        """Note what is in the files of a version, so that a copy of the same is no change."""
        digest = self._digest(model.spec, model.stamp)
        if digest:
            self._digests[model.spec.id] = (model.stamp, digest)

    def _same_content(self, spec: ModelSpec, old: Model, now: Stamp) -> bool:
        """Whether files that were touched still hold what was loaded."""
        known = self._digests.get(spec.id)
        if known is None or known[0] != old.stamp or self._digest(spec, now) != known[1]:
            return False
        old.stamp = now
        self._digests[spec.id] = (now, known[1])
        return True

    def _digest(self, spec: ModelSpec, files: Stamp) -> str | None:
        """SHA-256 over names and contents, for very large files over size and time; None when that can't be had."""
        whole = hashlib.sha256()
        try:
            for path, (_, size, moment) in sorted(files.items()):
                whole.update(f"{Path(path).relative_to(spec.folder)}\0{size}\0".encode())
                if size > HASHED_BYTES:
                    whole.update(str(moment).encode())
                    continue
                with Path(path).open("rb") as file:
                    whole.update(hashlib.file_digest(file, "sha256").digest())
            return whole.hexdigest() if stamp(spec) == files else None
        except (OSError, ModelRefused):
            return None
