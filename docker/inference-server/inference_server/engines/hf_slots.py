"""A Hugging Face folder by transformers: what a GPU image offers where torch is installed.

Sequences of different lengths advance together: each has a row of one key/value buffer a layer, writes at its own position and
is masked to its own length. Models whose cache is of another kind (sliding windows, recurrent states) run one text at a time.
"""

import importlib.util
import logging
from typing import Any

import numpy as np

from inference_server.engines.base import Floats
from inference_server.engines.instance import SlotModel
from inference_server.errors import ModelRefused
from inference_server.models import ModelSpec

log = logging.getLogger("inference_server.engine")
CHUNK = 512  # tokens of a prompt at a time
WIDTH_STEP = 64  # the cache is read up to a multiple of this: few shapes, so that kernels and allocations are reused


def open_slots(spec: ModelSpec, slots: int, longest: int) -> SlotModel:
    """The model in as many slots as its cache allows. Raises ModelRefused."""
    model = _load(spec)
    if _whole_attention(model.config, longest):
        try:
            return TransformersSlots(model, slots, longest)
        except _OtherCache as error:
            log.warning("one text at a time", extra={"fields": {"model": spec.id, "why": str(error)}})
    return OneText(model, longest)


class _OtherCache(Exception):
    """This model's answers in shared slots are not those it gives alone."""


class _Model:
    """What both ways share."""

    def __init__(self, model: Any, slots: int, longest: int) -> None:
        import torch

        self._torch = torch
        self._model = model
        self._device = model.device
        self.slots = slots
        self.context = min(int(getattr(model.config, "max_position_embeddings", longest)), longest)
        eos = model.generation_config.eos_token_id
        self.eos_ids: frozenset[int] = frozenset([eos] if isinstance(eos, int) else eos or [])

    def _ids(self, rows: list[list[int]]) -> Any:
        return self._torch.tensor(rows, device=self._device)

    def _logits(self, **given: Any) -> Any:
        """Logits after each row's last token, on the device; shape (rows, vocabulary)."""
        with self._torch.inference_mode():
            return self._model(**given, use_cache=True, logits_to_keep=1).logits[:, -1].float()


class TransformersSlots(_Model):
    """Slots 0 to ``slots`` - 1; the busy ones are always the first n, so that only those are computed."""

    chunk = CHUNK

    def __init__(self, model: Any, slots: int, longest: int) -> None:
        super().__init__(model, slots, longest)
        self._cache, self._rows = _shared_cache(model.config, slots, self.context)
        self._length = np.zeros(slots, np.int64)
        self._prove()  # which makes the cache's tensors
        parts = [part[0, :, 0] for layer in self._cache.layers for part in (layer.keys, layer.values)]
        self.state_bytes = sum(part.numel() * part.element_size() for part in parts)

    def prefill(self, slot: int, ids: list[int], start: int = 0) -> Floats:
        """See ``instance.SlotModel``."""
        self._length[slot] = start + len(ids)
        logits = self._run(slice(slot, slot + 1), np.arange(start, start + len(ids))[None], [ids])
        return np.asarray(logits[0].cpu().numpy(), np.float32)

    def step(self, tokens: list[int]) -> Floats:
        """See ``instance.SlotModel``."""
        count = len(tokens)
        logits = self._run(slice(0, count), self._length[:count, None], [[token] for token in tokens])
        self._length[:count] += 1
        return np.asarray(logits.cpu().numpy(), np.float32)

    def move(self, source: int, target: int) -> None:
        """See ``instance.SlotModel``."""
        size = int(self._length[source])
        with self._torch.inference_mode():
            for layer in self._cache.layers:
                for part in (layer.keys, layer.values):
                    part[target, :, :size] = part[source, :, :size]
        self._length[target] = size

    def copy(self, slot: int, size: int) -> list[Any]:
        """See ``instance.SlotModel``."""
        return [part[slot, :, :size].clone() for layer in self._cache.layers for part in (layer.keys, layer.values)]

    def paste(self, slot: int, state: list[Any], size: int) -> None:
        """See ``instance.SlotModel``."""
        with self._torch.inference_mode():
            parts = (part for layer in self._cache.layers for part in (layer.keys, layer.values))
            for part, kept in zip(parts, state, strict=True):
                part[slot, :, :size] = kept[:, :size]

    def _run(self, rows: slice, places: Any, ids: list[list[int]]) -> Any:
        """Write tokens at their places (rows x tokens) and attend to everything up to them."""
        torch = self._torch
        at = torch.tensor(places, device=self._device)
        width = min(self.context, -(-int(places.max() + 1) // WIDTH_STEP) * WIDTH_STEP)
        self._rows.now(rows, at, width)
        seen = torch.arange(width, device=self._device) <= at[:, None, :, None]
        mask = torch.zeros(seen.shape, dtype=self._model.dtype, device=self._device)
        mask.masked_fill_(~seen, torch.finfo(self._model.dtype).min)
        return self._logits(input_ids=self._ids(ids), attention_mask=mask, position_ids=at, past_key_values=self._cache)

    def _prove(self) -> None:
        """Refuse a model whose steps in shared slots differ from its run without a cache."""
        prompts = [[1, 2, 3, 4, 5], [7, 8, 9]][: self.slots]
        try:
            for slot, prompt in enumerate(prompts):
                self.prefill(slot, prompt[:2])
                self.prefill(slot, prompt[2:], 2)
            stepped = self.step([6] * len(prompts))
        except Exception as error:  # noqa: BLE001 (a model's own code may raise anything)
            raise _OtherCache(f"{type(error).__name__}: {error}") from None
        alone = np.stack([self._logits(input_ids=self._ids([[*prompt, 6]]))[0].cpu().numpy() for prompt in prompts])
        if not np.abs(stepped - alone).max() <= 0.05 * max(1.0, float(np.abs(alone).max())):
            raise _OtherCache("its steps in a shared cache differ from those alone")
        self._length[:] = 0


class OneText(_Model):
    """One slot, with the cache that transformers makes for the model."""

    def __init__(self, model: Any, longest: int) -> None:
        super().__init__(model, 1, longest)
        self._cache: Any = None
        self.chunk = self.context
        self.state_bytes = 0

    def prefill(self, slot: int, ids: list[int], start: int = 0) -> Floats:
        """Run a whole prompt with a fresh cache."""
        self._cache = None
        return self._run(ids)

    def step(self, tokens: list[int]) -> Floats:
        """One more token for the one text there is; shape (1, vocabulary)."""
        return self._run(tokens)[None, :]

    def move(self, source: int, target: int) -> None:
        """With one slot there is nothing to move."""

    def copy(self, slot: int, size: int) -> None:
        """Never asked for: what a cache of another kind holds can't be cut."""

    def paste(self, slot: int, state: Any, size: int) -> None:
        """Never asked for."""

    def _run(self, ids: list[int]) -> Floats:
        with self._torch.inference_mode():
            out = self._model(input_ids=self._ids([ids]), past_key_values=self._cache, use_cache=True, logits_to_keep=1)
            self._cache = out.past_key_values
            return np.asarray(out.logits[0, -1].float().cpu().numpy(), np.float32)


def _load(spec: ModelSpec) -> Any:
    """The weights on CUDA when there is one, in the type they were saved in (bf16 as a rule); else on the CPU in float32."""
    if importlib.util.find_spec("torch") is None or importlib.util.find_spec("transformers") is None:
        raise ModelRefused(
            f"{spec.folder} needs the transformers engine, which comes with the GPU image (torch is not installed here): use that image, or "
            "export the model to ONNX with `python -m onnxruntime_genai.models.builder`."
        )
    import torch
    from transformers import AutoModelForCausalLM

    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = "auto" if device == "cuda" else torch.float32
    try:
        model = AutoModelForCausalLM.from_pretrained(str(spec.folder), dtype=dtype, local_files_only=True)
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        raise ModelRefused(
            f"{spec.folder} can't be loaded by transformers: {' '.join(str(error).split())[:200]}"
        ) from None
    return model.to(device).eval()


def _whole_attention(config: Any, longest: int) -> bool:
    """Whether every layer attends to the whole text, as far as texts get here."""
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    window = getattr(config, "sliding_window", None) if getattr(config, "use_sliding_window", True) else None
    return (kinds <= {"full_attention"} and window is None) or (window or 0) >= longest


def _shared_cache(config: Any, slots: int, context: int) -> tuple[Any, Any]:
    """A transformers cache whose rows belong to sequences of different lengths, and the handle that says where to write."""
    from transformers.cache_utils import Cache, CacheLayerMixin

    class Rows:
        """Which rows the running call concerns, where in each it writes, and how far it reads."""

        def now(self, rows: slice, places: Any, width: int) -> None:
            self.rows, self.places, self.width = rows, places, width

    handle = Rows()

    class SharedLayer(CacheLayerMixin):  # type: ignore[misc]  # transformers has no types here
        """One layer's keys and values, shape (slots, heads, context, width), written in place."""

        def lazy_initialization(self, key_states: Any, value_states: Any) -> None:
            def buffer(like: Any) -> Any:
                return like.new_zeros((slots, like.shape[1], context, like.shape[3]))

            self.keys, self.values = buffer(key_states), buffer(value_states)
            self.is_initialized = True

        def update(self, key_states: Any, value_states: Any, *_: Any, **__: Any) -> tuple[Any, Any]:
            if not self.is_initialized:
                self.lazy_initialization(key_states, value_states)
            places = handle.places[:, None, :, None]
            for buffer, states in ((self.keys, key_states), (self.values, value_states)):
                buffer[handle.rows].scatter_(2, places.expand_as(states), states)
            return self.keys[handle.rows, :, : handle.width], self.values[handle.rows, :, : handle.width]

        def get_seq_length(self) -> int:
            return 0

        def get_max_length(self) -> int:
            return context

        def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
            return handle.width, 0

    return Cache(layers=[SharedLayer() for _ in range(config.num_hidden_layers)]), handle
