"""The embedding engine: a table of vectors for hashed words and word pieces, summed up by weight, in plain NumPy."""

import asyncio
import hashlib
import math
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from inference_server.engines import standstill
from inference_server.engines.base import STOPPING, Floats, Vitals
from inference_server.engines.features import features, words
from inference_server.errors import ModelRefused, RequestError
from inference_server.models import ModelSpec, check_whole
from inference_server.settings import Settings

TEXTS_A_TURN = 16


class EmbedEngine:
    """``model.npz`` holds ``table`` (int8, rows x dimensions), ``scale`` (float32, rows) and ``idf`` (float32, rows)."""

    def __init__(self, spec: ModelSpec, settings: Settings) -> None:
        self._id = spec.id
        self._longest = settings.max_prompt_tokens
        self._most = settings.max_queue
        check_whole(spec.weights)
        wanted = spec.card.get("sha256")
        if wanted is not None and hashlib.sha256(spec.weights.read_bytes()).hexdigest() != wanted:
            raise ModelRefused(
                f"{spec.weights} is not the file its model.json describes (sha256 differs): copy both again."
            )
        try:
            with np.load(spec.weights, allow_pickle=False) as arrays:
                self._table, scale, idf = arrays["table"], arrays["scale"], arrays["idf"]
            self._rows, self.dimensions = self._table.shape
            self._factor: Floats = (scale * idf).astype(np.float32)
            if self._factor.shape != (self._rows,) or not np.isfinite(self._factor).all():
                raise ValueError("its arrays do not fit each other")
        except Exception as error:  # noqa: BLE001 (a damaged archive raises whatever its place of damage makes numpy raise)
            said = " ".join(str(error).split())[:200]
            raise ModelRefused(f"{spec.weights} can't be read as an embedding table ({said}): copy it again.") from None
        self.batch_sizes: defaultdict[int, int] = defaultdict(int)
        self._waiting = 0
        self._closed = False
        self._stall_seconds = settings.stall_seconds
        self._began: float | None = None  # the texts that are being computed now
        # A thread, so that a long text holds up nobody's tokens; one, because NumPy's sums would not get faster by more.
        self._thread = ThreadPoolExecutor(1, f"engine-{spec.id}")

    async def embed(self, texts: list[str]) -> tuple[Floats, int]:
        """See ``base.Embed``."""
        if self._closed:
            raise _down()
        if self._waiting > self._most:
            raise RequestError(
                429,
                f"{self._waiting} requests already wait for this model: try again in 1 s.",
                "queue_full",
                retry_after=1,
            )
        self._waiting += 1
        parts: list[Floats] = []
        tokens = 0
        try:
            for start in range(0, len(texts), TEXTS_A_TURN):  # others come in between
                if self._closed:
                    raise _down()
                run = asyncio.get_running_loop().run_in_executor(
                    self._thread, self._turn, texts[start : start + TEXTS_A_TURN]
                )
                try:
                    vectors, count = await run
                except asyncio.CancelledError:
                    task = asyncio.current_task()
                    if self._closed and task and not task.cancelling():  # by close(), and not because the client left
                        raise _down() from None
                    raise
                parts.append(vectors)
                tokens += count
        finally:
            self._waiting -= 1
        return np.concatenate(parts), tokens

    def _turn(self, texts: list[str]) -> tuple[Floats, int]:
        """On the engine's thread."""
        self._began = time.monotonic()
        try:
            return self._run(texts)
        finally:
            self._began = None

    def _run(self, texts: list[str]) -> tuple[Floats, int]:
        """Vectors and tokens of a few texts. Raises RequestError for one that has too many."""
        vectors = np.zeros((len(texts), self.dimensions), np.float32)
        total = 0
        self.batch_sizes[len(texts)] += 1
        for at, text in enumerate(texts):
            tokens = words(text)
            if len(tokens) > self._longest:
                raise RequestError(
                    422,
                    f"A text has {len(tokens)} words and this server takes {self._longest}: cut it into passages.",
                    "context_length_exceeded",
                    "input",
                )
            total += len(tokens)
            index, weights = features(tokens, self._rows)
            vector = (weights * self._factor[index]) @ self._table[index].astype(np.float32)
            length = float(np.linalg.norm(vector))
            vectors[at] = vector / length if length else self._even()
        return vectors, total

    def _even(self) -> Floats:
        """A direction for a text of which nothing weighs anything."""
        return np.full(self.dimensions, self.dimensions**-0.5, np.float32)

    def vitals(self) -> Vitals:
        """See ``base.Engine``."""
        silent = time.monotonic() - max(self._began or math.inf, standstill.look())
        why = "the engine is closed" if self._closed else ""
        if silent > self._stall_seconds:
            why = why or f"the engine has been at the same texts for {silent:.0f} s"
        return Vitals(why, min(self._waiting, 1), max(0, self._waiting - 1))

    def close(self, why: str = STOPPING) -> None:
        """See ``base.Engine``."""
        self._closed = True
        self._thread.shutdown(wait=False, cancel_futures=True)


def _down() -> RequestError:
    return RequestError(503, "The model's engine is not running; the server will be replaced.", "engine_down")
