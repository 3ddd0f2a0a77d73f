"""From logits to a token, and from tokens to text that stops where it should."""

from collections import deque
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from inference_server.engines.base import Floats, Sampling, TokenLogprob


class Sampler:
    """Draws one answer's tokens; its own random generator makes a seed repeat whoever else is in the batch.

    ``index`` is the answer's number among several: each has its own draws from the same seed.
    """

    def __init__(self, sampling: Sampling, index: int = 0) -> None:
        self._temperature = sampling.temperature
        self._top_p = sampling.top_p
        seed = None if sampling.seed is None else sampling.seed % 2**64
        self._seed = seed if seed is None or index == 0 else (seed, index)
        self._random: np.random.Generator | None = None  # made when drawn from: it costs as much as several tokens
        self._frequency = sampling.frequency_penalty
        self._presence = sampling.presence_penalty
        self._bias = sampling.logit_bias
        self._shifts = bool(self._frequency or self._presence or self._bias)
        self._shift: npt.NDArray[np.float64] | None = None
        self._seen: set[int] = set()

    @property
    def greedy(self) -> bool:
        """Whether the most likely token is always taken."""
        return self._temperature <= 0

    @property
    def plain(self) -> bool:
        """Whether a token depends on its logits alone."""
        return self.greedy and not self._shifts

    def pick(self, logits: Floats, best: int | None = None) -> int:
        """The next token from one line of logits, shape (vocabulary,); ``best`` is the most likely one, where it is known already."""
        if self._shifts:
            return self._pick_shifted(logits)
        if self.greedy:
            return int(logits.argmax()) if best is None else best
        return self._draw(logits.astype(np.float64))

    def _pick_shifted(self, logits: Floats) -> int:
        """With what bias and penalties add to each logit, which is kept from token to token."""
        if self._shift is None:
            self._shift = np.zeros(len(logits))
            for token, bias in self._bias:
                if token < len(logits):
                    self._shift[token] += bias
        shifted = logits + self._shift
        token = int(shifted.argmax()) if self.greedy else self._draw(shifted)
        self._shift[token] -= self._frequency + (0 if token in self._seen else self._presence)
        self._seen.add(token)
        return token

    def _draw(self, scaled: npt.NDArray[np.float64]) -> int:
        scaled = (scaled - scaled.max()) / max(self._temperature, 1e-4)
        weights: npt.NDArray[np.float64] = np.exp(scaled)
        weights /= weights.sum()
        if self._top_p < 1:
            order = np.argsort(-weights, kind="stable")
            before = np.cumsum(weights[order]) - weights[order]
            weights[order[before >= self._top_p]] = 0  # the first token always stays: nothing comes before it
            weights /= weights.sum()
        if self._random is None:
            self._random = np.random.default_rng(self._seed)
        return int(self._random.choice(len(weights), p=weights))


class Logprobs:
    """Log-probabilities of the drawn tokens, given out with the text those tokens make.

    Args:
        top: how many of the most likely tokens to name beside each drawn one.
        token_bytes: token id to its bytes.
    """

    def __init__(self, top: int, token_bytes: Callable[[int], bytes]) -> None:
        self._top = top
        self._bytes = token_bytes
        self._held: deque[tuple[int, TokenLogprob]] = deque()  # with the place in the text where each begins
        self._read = self._sent = 0
        self._first = True

    def add(self, logits: Floats, token: int, text: str) -> None:
        """A drawn token, the logits it was drawn from, and the text it completed."""
        line = logits.astype(np.float64)
        line -= line.max()
        line -= np.log(np.exp(line).sum())
        best: list[int] = []
        if self._top:
            some = np.argpartition(-line, self._top - 1)[: self._top]
            best = some[np.argsort(-line[some], kind="stable")].tolist()
        named = self._bytes(token)
        if self._first and named.startswith(b" ") and not text.startswith(" "):
            named = named[1:]  # tokenizers whose words begin with a space take the first one off
        self._first = False
        rivals = tuple((self._bytes(each), float(line[each])) for each in best)
        self._held.append((self._read, TokenLogprob(named, float(line[token]), rivals)))
        self._read += len(text)

    def release(self, text: str, everything: bool = False) -> tuple[TokenLogprob, ...]:
        """Those that belong to this next piece of text; at an answer's own end ``everything`` that is left."""
        self._sent += len(text)
        out = []
        while self._held and (everything or self._held[0][0] < self._sent):
            out.append(self._held.popleft()[1])
        return tuple(out)


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
