"""From logits to a token, and from tokens to text that stops where it should."""

import numpy as np
import numpy.typing as npt

from inference_server.engines.base import Floats, Sampling


class Sampler:
    """Draws one request's tokens; its own random generator makes a seed repeat whoever else is in the batch."""

    def __init__(self, sampling: Sampling) -> None:
        self._temperature = sampling.temperature
        self._top_p = sampling.top_p
        self._random = np.random.default_rng(None if sampling.seed is None else sampling.seed % 2**64)

    @property
    def greedy(self) -> bool:
        """Whether the most likely token is always taken."""
        return self._temperature <= 0

    def pick(self, logits: Floats) -> int:
        """The next token from one line of logits, shape (vocabulary,)."""
        if self.greedy:
            return int(logits.argmax())
        scaled = logits.astype(np.float64)
        scaled = (scaled - scaled.max()) / max(self._temperature, 1e-4)
        weights: npt.NDArray[np.float64] = np.exp(scaled)
        weights /= weights.sum()
        if self._top_p < 1:
            order = np.argsort(-weights, kind="stable")
            before = np.cumsum(weights[order]) - weights[order]
            weights[order[before >= self._top_p]] = 0  # the first token always stays: nothing comes before it
            weights /= weights.sum()
        return int(self._random.choice(len(weights), p=weights))


class StopFilter:
    """Cuts a text stream at the first stop string, holding back only what may still become one."""

    def __init__(self, stops: tuple[str, ...]) -> None:
        self._stops = tuple(stop for stop in stops if stop)
        self._held = ""

    def feed(self, text: str) -> tuple[str, bool]:
        """(text that may be sent now, whether a stop string was met)."""
        if not self._stops:
            return text, False
        self._held += text
        found = [at for at in (self._held.find(stop) for stop in self._stops) if at >= 0]
        if found:
            sent, self._held = self._held[: min(found)], ""
            return sent, True
        keep = max(self._overlap(stop) for stop in self._stops)
        cut = len(self._held) - keep
        sent, self._held = self._held[:cut], self._held[cut:]
        return sent, False

    def flush(self) -> str:
        """What was held back and turned out to be no stop string."""
        sent, self._held = self._held, ""
        return sent

    def _overlap(self, stop: str) -> int:
        """Length of the longest end of the held text that begins ``stop``."""
        longest = min(len(stop) - 1, len(self._held))
        return next((size for size in range(longest, 0, -1) if self._held.endswith(stop[:size])), 0)
