"""The models behind every peer: onnxruntime-genai's generator for texts, onnxruntime for classes, on the files our server has.

Settings, all from the environment: TEXT_MODEL and CLASS_MODEL (folders), WORKERS (processes), THREADS (a model's own; 0: as
the library likes), BATCH (most requests computed together).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

TASK = os.environ.get("TASK", "generate")
PORT = int(os.environ.get("PORT", "8000"))
WORKERS = int(os.environ.get("WORKERS", "1"))
THREADS = int(os.environ.get("THREADS", "0"))
BATCH = int(os.environ.get("BATCH", "1"))

#: {"prompt": str, "max_tokens": int} and, for classes, {"inputs": [64 numbers]}
Request = dict[str, Any]


class TextModel:
    """A generator over as many requests as it is given; all of them are computed until the longest has ended."""

    def __init__(self) -> None:
        import onnxruntime_genai as og

        self._og = og
        config = og.Config(os.environ["TEXT_MODEL"])
        if THREADS:
            options = {"session_options": {"intra_op_num_threads": THREADS}}
            config.overlay(json.dumps({"model": {"decoder": options}}))
        self._model = og.Model(config)
        self._tokenizer = og.Tokenizer(self._model)

    def answer(self, requests: list[Request]) -> list[dict[str, Any]]:
        """Whole answers, in the order of the requests."""
        generator, start = self._begin(requests)
        while not generator.is_done():
            generator.generate_next_token()
        answers = []
        for number, request in enumerate(requests):
            tokens = generator.get_sequence(number)[start : start + request["max_tokens"]]
            answers.append({"text": self._tokenizer.decode(tokens), "completion_tokens": len(tokens)})
        return answers

    def stream(self, requests: list[Request]) -> Iterator[list[str]]:
        """A piece of text for each request, token by token; empty once it has all of its own."""
        generator, _ = self._begin(requests)
        words = [self._tokenizer.create_stream() for _ in requests]
        left = [int(request["max_tokens"]) for request in requests]
        while not generator.is_done():
            generator.generate_next_token()
            pieces = []
            for number, token in enumerate(generator.get_next_tokens()):
                pieces.append(words[number].decode(token) if left[number] > 0 else "")
                left[number] -= 1
            yield pieces

    def _begin(self, requests: list[Request]) -> tuple[Any, int]:
        """A generator that has read the prompts, and where its new tokens start."""
        chats = [json.dumps([{"role": "user", "content": request["prompt"]}]) for request in requests]
        prompts = [self._tokenizer.apply_chat_template(chat, add_generation_prompt=True) for chat in chats]
        ids = self._tokenizer.encode_batch(prompts).as_numpy()
        params = self._og.GeneratorParams(self._model)
        longest = max(int(request["max_tokens"]) for request in requests)
        params.set_search_options(batch_size=len(requests), max_length=ids.shape[1] + longest, do_sample=False)
        generator = self._og.Generator(self._model, params)
        generator.append_tokens(ids)
        return generator, ids.shape[1]


class ClassModel:
    """The classifier's probabilities, for as many rows as it is given."""

    def __init__(self) -> None:
        import numpy as np
        import onnxruntime

        self._np = np
        folder = os.environ["CLASS_MODEL"]
        with open(f"{folder}/model.json", encoding="utf-8") as card:  # noqa: PTH123
            self._card = json.load(card)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = THREADS
        self._session = onnxruntime.InferenceSession(f"{folder}/model.onnx", options)

    def answer(self, requests: list[Request]) -> list[dict[str, Any]]:
        """Class, confidence and probabilities of each row, as our server gives them."""
        np, labels = self._np, self._card["labels"]
        rows = np.array([request["inputs"] for request in requests], np.float32)
        scores = self._session.run([self._card["output"]["name"]], {self._card["input"]["name"]: rows})[0]
        answers = []
        for line in scores:
            best = int(line.argmax())
            answers.append(
                {
                    "predicted_class": labels[best],
                    "confidence": float(line[best]),
                    "probabilities": dict(zip(labels, line.tolist(), strict=True)),
                }
            )
        return answers


def event(text: str) -> str:
    """A server-sent event with a piece of text."""
    return f"data: {json.dumps({'text': text})}\n\n"


def load() -> Any:
    """The model that TASK needs."""
    return ClassModel() if TASK == "classify" else TextModel()
