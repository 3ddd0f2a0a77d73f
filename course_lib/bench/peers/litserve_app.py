"""LitServe with its own batching: a batch is formed within 10 ms and computed to its end. `python litserve_app.py`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import litserve as ls
from model import BATCH, PORT, TASK, WORKERS, event, load

WINDOW_SECONDS = 0.01  # a full batch does not wait for it


class Peer(ls.LitAPI):
    """Requests are dictionaries, so that a batch is a list of them; LitServe hands over bare ones where BATCH is 1."""

    def setup(self, device: str) -> None:
        self.model = load()

    def batch(self, inputs: list[Any]) -> list[Any]:
        return inputs

    def unbatch(self, output: Any) -> Any:
        return output

    def predict(self, x: Any) -> Any:
        return self.model.answer(x)


class StreamingPeer(Peer):
    """All streams of a batch advance together."""

    def predict(self, x: Any) -> Iterator[Any]:
        yield from self.model.stream(x)

    def unbatch(self, output: Iterator[Any]) -> Iterator[Any]:
        yield from output

    def encode_response(self, output: Iterator[Any]) -> Iterator[Any]:
        for pieces in output:
            yield [event(piece) for piece in pieces]


if __name__ == "__main__":
    kind = StreamingPeer if TASK == "stream" else Peer
    api = kind(max_batch_size=BATCH, batch_timeout=WINDOW_SECONDS, stream=TASK == "stream", api_path=f"/{TASK}")
    # As its documentation advises: as many workers as the tuning found best, and the faster queue from 100 requests a second.
    server = ls.LitServer(api, accelerator="cpu", workers_per_device=WORKERS, timeout=60, fast_queue=True)
    server.run(host="127.0.0.1", port=PORT, generate_client_file=False)
