"""A Hugging Face folder by transformers, one text at a time: what a GPU image offers where torch is installed."""

import importlib.util
from typing import Any

import numpy as np

from inference_server.engines.base import Floats
from inference_server.errors import ModelRefused
from inference_server.models import ModelSpec


class TransformersSlots:
    """One slot; its cache is transformers' own. On CUDA when there is one, in the dtype the weights were saved in; else on the CPU in float32."""

    def __init__(self, spec: ModelSpec, longest: int) -> None:
        if importlib.util.find_spec("torch") is None or importlib.util.find_spec("transformers") is None:
            raise ModelRefused(
                f"{spec.folder} needs the transformers engine, which comes with the GPU image (torch is not installed here): use that image, or "
                "export the model to ONNX with `python -m onnxruntime_genai.models.builder`."
            )
        import torch
        from transformers import AutoModelForCausalLM

        self._torch = torch
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            dtype = "auto" if self._device == "cuda" else torch.float32
            model = AutoModelForCausalLM.from_pretrained(str(spec.folder), dtype=dtype, local_files_only=True)
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise ModelRefused(
                f"{spec.folder} can't be loaded by transformers: {' '.join(str(error).split())[:200]}"
            ) from None
        self._model: Any = model.to(self._device).eval()
        self._cache: Any = None
        self.slots = 1
        self.context = min(int(getattr(model.config, "max_position_embeddings", longest)), longest)
        eos = model.generation_config.eos_token_id
        self.eos_ids: frozenset[int] = frozenset([eos] if isinstance(eos, int) else eos or [])

    def prefill(self, slot: int, ids: list[int]) -> Floats:
        """Run a prompt with a fresh cache."""
        self._cache = None
        return self._run(ids)

    def step(self, tokens: list[int]) -> Floats:
        """One more token for the one text there is; shape (1, vocabulary)."""
        return self._run(tokens)[None, :]

    def move(self, source: int, target: int) -> None:
        """With one slot there is nothing to move."""

    def _run(self, ids: list[int]) -> Floats:
        with self._torch.inference_mode():
            given = self._torch.tensor([ids], device=self._device)
            out = self._model(input_ids=given, past_key_values=self._cache, use_cache=True)
            self._cache = out.past_key_values
            return np.asarray(out.logits[0, -1].float().cpu().numpy(), np.float32)
