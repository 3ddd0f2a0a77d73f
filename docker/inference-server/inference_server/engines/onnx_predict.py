"""The class engine: rows that arrive together are computed together, on one thread that owns the session."""

import asyncio
import logging
import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from inference_server.engines.base import Floats
from inference_server.engines.loop import EngineLoop
from inference_server.engines.onnx_session import open_session
from inference_server.errors import ModelRefused, RequestError, too_late
from inference_server.models import ModelSpec
from inference_server.settings import Settings

log = logging.getLogger("inference_server.engine")
ROWS_A_RUN = 1024


@dataclass(slots=True)
class _Job:
    rows: Floats
    aio: asyncio.AbstractEventLoop
    reply: asyncio.Future[Floats]


class PredictEngine(EngineLoop):
    """An ONNX classifier described by its model.json: ``input`` (name, shape, min, max), ``output`` (name, scores), ``labels``."""

    def __init__(self, spec: ModelSpec, settings: Settings, threads: int) -> None:
        super().__init__(spec.id, settings.stall_seconds)
        self._where = spec.folder / "model.json"
        try:
            shape = [int(size) for size in spec.card["input"]["shape"]]
            self._input = str(spec.card["input"].get("name", ""))
            self._low = float(spec.card["input"].get("min", -math.inf))
            self._high = float(spec.card["input"].get("max", math.inf))
            self._output = str(spec.card["output"]["name"])
            self._softmax = spec.card["output"].get("scores", "probabilities") == "logits"
            self.labels = tuple(str(label) for label in spec.card["labels"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ModelRefused(
                f"{self._where} lacks something or has it wrong ({error!r}): README.md shows a whole one."
            ) from None
        self._shape = tuple(shape)
        self._session = open_session(spec.weights, threads, spec.card.get("sha256"))
        self._max_queue = settings.max_queue
        self._timeout = settings.request_timeout_seconds
        self._jobs: deque[_Job] = deque()
        self._prove(spec)
        self.start()

    def parse(self, row: object) -> Floats:
        """See ``base.Predict``."""
        wanted = " x ".join(map(str, self._shape))
        if not isinstance(row, list):
            raise RequestError(422, f"A row is a list of {wanted} numbers.", "bad_row", "inputs")
        try:
            if {bool, str} & set(map(type, row)):  # numpy would take True for 1 and "5" for 5
                raise ValueError
            values = np.asarray(row, np.float32)
        except (ValueError, TypeError, OverflowError, RecursionError):
            raise RequestError(
                422,
                f"A row is a list of {wanted} numbers, and this one holds something else.",
                "bad_row",
                "inputs",
            ) from None
        if values.shape != self._shape:
            got = " x ".join(map(str, values.shape))
            raise RequestError(422, f"A row has {wanted} numbers; this one has {got}.", "bad_row", "inputs")
        least, most = values.min(), values.max()  # both are NaN where one value is
        if not (math.isfinite(least) and math.isfinite(most)):
            raise RequestError(422, "A row holds a number that is not finite.", "bad_row", "inputs")
        if least < self._low or most > self._high:
            at = int(np.argmax((values < self._low) | (values > self._high)))
            raise RequestError(
                422,
                f"Number {at + 1} of the row is {values.flat[at]:g}; this model takes {self._low:g} to {self._high:g}.",
                "bad_row",
                "inputs",
            )
        return values

    async def predict(self, rows: Floats) -> Floats:
        """See ``base.Predict``."""
        aio = asyncio.get_running_loop()
        job = _Job(rows, aio, aio.create_future())
        with self.wake:
            if self.closing or not self.vitals().alive:
                raise RequestError(
                    503, "The model's engine is not running; the server will be replaced.", "engine_down"
                )
            if len(self._jobs) >= max(1, self._max_queue):
                raise RequestError(
                    429,
                    f"{len(self._jobs)} requests already wait for this model: try again shortly.",
                    "queue_full",
                    retry_after=1,
                )
            self._jobs.append(job)
            self.wake.notify()
        # Not by the loop itself: it may be what is stuck. And not asyncio.timeout, which costs several times as much.
        timer = aio.call_later(self._timeout, self._give_up, job)
        try:
            return await job.reply
        finally:
            timer.cancel()

    def _give_up(self, job: _Job) -> None:
        _give([(job, too_late(self._timeout))])

    # What follows runs on the loop's own thread.

    def turn(self) -> bool:
        """Take what waits, compute it in one run, give each its part."""
        jobs: list[_Job] = []
        with self.wake:
            while self._jobs and (
                not jobs or sum(len(job.rows) for job in jobs) + len(self._jobs[0].rows) <= ROWS_A_RUN
            ):
                jobs.append(self._jobs.popleft())
        if not jobs:
            return False
        try:
            rows = np.concatenate([job.rows for job in jobs])
            self.batch_sizes[len(rows)] += 1
            answers = self._compute(rows)
        except BaseException as problem:
            error = RequestError(500, "The model could not compute this; the server's log says why.", "engine_error")
            _settle(jobs, [error] * len(jobs))
            if not isinstance(problem, Exception):
                raise  # the loop dies; these jobs are in no list any more and had to be told here
            log.exception("rows could not be computed")
            return True
        parts, start = [], 0
        for job in jobs:
            parts.append(answers[start : start + len(job.rows)])
            start += len(job.rows)
        _settle(jobs, parts)
        return True

    def _compute(self, rows: Floats) -> Floats:
        """Probabilities, shape (rows, labels)."""
        scores: Floats = np.asarray(self._session.run([self._output], {self._input: rows})[0], np.float32)
        if self._softmax:
            scores = np.exp(scores - scores.max(-1, keepdims=True))
            scores /= scores.sum(-1, keepdims=True)
        return scores

    def _prove(self, spec: ModelSpec) -> None:
        """Ask for one row before anybody else does: card and file have to fit each other."""
        names = [item.name for item in self._session.get_inputs()]
        self._input = self._input or names[0]
        zero = np.full((1, *self._shape), max(self._low, min(0.0, self._high)), np.float32)
        try:
            scores = self._compute(zero)
        except Exception as error:  # noqa: BLE001 (onnxruntime's errors share no base class)
            said = " ".join(str(error).split())[:200]
            raise ModelRefused(f"{spec.weights} does not fit {self._where}: {said}") from None
        if scores.shape != (1, len(self.labels)):
            raise ModelRefused(
                f"{spec.weights} gives scores of shape {scores.shape} and {self._where} names {len(self.labels)} labels."
            )
        if not np.isfinite(scores).all() or not math.isclose(float(scores.sum()), 1, abs_tol=1e-3):
            raise ModelRefused(
                f'{spec.weights}: the output {self._output} holds no probabilities. If they are logits, say "scores": "logits" in {self._where}.'
            )

    def has_work(self) -> bool:
        return bool(self._jobs)

    def load(self) -> tuple[int, int]:
        return 0, len(self._jobs)

    def abandon(self, why: str) -> None:
        with self.wake:
            self.closing = True
            left = list(self._jobs)
            self._jobs.clear()
        _settle(left, [RequestError(503, f"The answer was cut off: {why}.", "engine_down") for _ in left])


def _settle(jobs: Iterable[_Job], results: Iterable[Floats | RequestError]) -> None:
    """Hand results to the event loop that waits for them, in one call: waking it costs more than a small row."""
    own: dict[asyncio.AbstractEventLoop, list[tuple[_Job, Floats | RequestError]]] = {}
    for job, result in zip(jobs, results, strict=True):
        own.setdefault(job.aio, []).append((job, result))
    for aio, settled in own.items():
        try:
            aio.call_soon_threadsafe(_give, settled)
        except RuntimeError:  # that loop is closed: nobody is left to read
            log.debug("an answer came too late")


def _give(settled: list[tuple[_Job, Floats | RequestError]]) -> None:
    for job, result in settled:
        if job.reply.done():
            continue
        if isinstance(result, RequestError):
            job.reply.set_exception(result)
        else:
            job.reply.set_result(result)
