"""The exported folder run by plain onnxruntime, tokenizers and jinja2: greedy answers, one conversation at a time."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort
from jinja2 import Template
from tokenizers import Tokenizer

Message = dict[str, str]


class Tutor:
    """A loaded model folder; `answer` needs nothing that the folder does not hold."""

    def __init__(self, folder: Path, threads: int = 1) -> None:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
        self.layers, self.heads = config["num_hidden_layers"], config["num_key_value_heads"]
        self.width, self.context = config["head_dim"], config["max_position_embeddings"]
        self.end = config["eos_token_id"]
        self.template = Template(settings["chat_template"])
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        self.session = ort.InferenceSession(
            str(folder / "onnx" / "model.onnx"), options, providers=["CPUExecutionProvider"]
        )
        self.outputs = [o.name for o in self.session.get_outputs()]

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """Token ids up to the place where the answer begins."""
        text = self.template.render(messages=list(messages), add_generation_prompt=True)
        return list(self.tokenizer.encode(text, add_special_tokens=False).ids)

    def answer(self, messages: Sequence[Message], limit: int = 96) -> str:
        """The greedy answer (temperature 0), at most ``limit`` tokens."""
        ids = self.prompt(messages)
        empty = np.zeros((1, self.heads, 0, self.width), np.float32)
        past = {f"past_key_values.{i}.{kv}": empty for i in range(self.layers) for kv in ("key", "value")}
        said: list[int] = []
        total = 0
        while len(said) < min(limit, self.context - len(ids)):
            step = ids if not said else said[-1:]
            total += len(step)
            feed = {
                "input_ids": np.array([step], np.int64),
                "attention_mask": np.ones((1, total), np.int64),
                **past,
            }
            out = dict(zip(self.outputs, self.session.run(None, feed), strict=True))
            token = int(out["logits"][0, -1].argmax())
            if token == self.end:
                break
            said.append(token)
            past = {
                name.replace("present", "past_key_values"): value for name, value in out.items() if name != "logits"
            }
        return str(self.tokenizer.decode(said, skip_special_tokens=True))

    def ask(self, question: str, system: str | None = None) -> str:
        """Answer one question, at times with a system message."""
        messages = [{"role": "system", "content": system}] if system else []
        return self.answer([*messages, {"role": "user", "content": question}])
