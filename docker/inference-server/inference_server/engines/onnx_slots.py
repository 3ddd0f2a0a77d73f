"""A text model in plain onnxruntime whose sequences share one key/value buffer a layer.

The int4 or float models that ``onnxruntime_genai.models.builder`` writes use GroupQueryAttention: it reads each sequence's length from a
right-padded attention mask, and writes new keys and values in place when past and present are bound to the same buffer. So sequences of
different lengths advance together, and a prompt, or the next part of one, is run alone in a slot of its own.
"""

import math
import mmap
from contextlib import suppress
from typing import Any

import numpy as np

from inference_server.engines.base import Floats
from inference_server.engines.onnx_session import open_session
from inference_server.errors import ModelRefused
from inference_server.models import ModelSpec, read_json

CHUNK = 64  # tokens of a prompt at a time: enough to compute well, few enough for those who wait for their next token
LOGITS = 0  # its place among a binding's outputs
NUMPY_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}


class OnnxSlots:
    """Key/value slots 0 to ``slots`` - 1; the busy ones are always the first n, so that only those are computed."""

    chunk = CHUNK

    def __init__(self, spec: ModelSpec, slots: int, threads: int, longest: int) -> None:
        self.slots = slots
        config = read_json(spec.weights.parent / "genai_config.json").get("model", {})
        self.context = min(int(config.get("context_length", longest)), longest)
        eos = config.get("eos_token_id")
        self.eos_ids: frozenset[int] = frozenset([eos] if isinstance(eos, int) else eos or [])
        self._session = open_session(spec.weights, threads, spec.card.get("sha256"))
        inputs = {item.name: item for item in self._session.get_inputs()}
        caches = [name for name in inputs if name.startswith("past_key_values.")]
        extra = set(inputs) - set(caches) - {"input_ids", "attention_mask"}
        if not caches or extra or "attention_mask" not in inputs:
            raise ModelRefused(
                f"{spec.weights} has inputs this engine doesn't know ({', '.join(sorted(extra)) or 'no key/value cache'}): export it with "
                "`python -m onnxruntime_genai.models.builder`."
            )
        self._layers = len(caches) // 2
        kind = NUMPY_TYPES.get(inputs[caches[0]].type)
        if kind is None:
            raise ModelRefused(
                f"{spec.weights} keeps its cache as {inputs[caches[0]].type}: export it for the CPU (-e cpu)."
            )
        try:
            heads, width = int(config["decoder"]["num_key_value_heads"]), int(config["decoder"]["head_size"])
        except (KeyError, TypeError, ValueError):
            raise ModelRefused(
                f"{spec.weights.parent / 'genai_config.json'} lacks the size of the cache: export the model again."
            ) from None
        self._outputs = ["logits"] + [f"present.{i}.{part}" for i in range(self._layers) for part in ("key", "value")]
        self._empty = {name: np.zeros((1, heads, 0, width), kind) for name in caches}
        logits = next(item for item in self._session.get_outputs() if item.name == "logits")
        self._cache = {name: _sparse((slots, heads, self.context, width), kind) for name in caches}
        self.state_bytes = (
            sum(math.prod(past.shape[1:]) * past.itemsize for past in self._cache.values()) // self.context
        )
        self._numbers = np.arange(slots)
        self._length = np.zeros(slots, np.int64)
        self._mask = np.zeros((slots, self.context), np.int64)
        self._ids = np.zeros((slots, 1), np.int64)
        self._logits = np.zeros((slots, 1, self._vocabulary(logits)), NUMPY_TYPES.get(logits.type, np.float32))
        self._first_slots = [self._bind(slice(0, count)) for count in range(1, slots + 1)]
        self._one_slot = [self._bind(slice(slot, slot + 1)) for slot in range(slots)]
        self._prove(spec)

    def prefill(self, slot: int, ids: list[int], start: int = 0) -> Floats:
        """Run a prompt, or a part of one that begins at token ``start``, in ``slot``; returns the logits after its last token."""
        size = start + len(ids)
        self._length[slot] = size
        self._mask[slot] = 0
        self._mask[slot, :size] = 1
        binding = self._one_slot[slot]
        given = np.array([ids], np.int64)
        binding.bind_input("input_ids", "cpu", 0, np.int64, given.shape, given.ctypes.data)
        binding.bind_output("logits", "cpu")  # anew, as its shape is another each time
        self._session.run_with_iobinding(binding)
        return np.asarray(binding.get_outputs()[LOGITS].numpy()[0, -1], np.float32)

    def step(self, tokens: list[int]) -> Floats:
        """Append one token to each of the first ``len(tokens)`` slots; returns their logits, shape (slots in use, vocabulary)."""
        count = len(tokens)
        self._ids[:count, 0] = tokens
        self._mask[self._numbers[:count], self._length[:count]] = 1
        self._session.run_with_iobinding(self._first_slots[count - 1])
        self._length[:count] += 1
        return np.asarray(self._logits[:count, 0], np.float32)

    def move(self, source: int, target: int) -> None:
        """Copy one slot over another, which closes the gap a finished sequence leaves."""
        size = self._length[source]
        for past in self._cache.values():
            past[target, :, :size] = past[source, :, :size]
        self._length[target] = size
        self._mask[target] = self._mask[source]

    def copy(self, slot: int, size: int) -> list[Any]:
        """Keys and values of the first ``size`` tokens of a slot."""
        return [past[slot, :, :size].copy() for past in self._cache.values()]

    def paste(self, slot: int, state: list[Any], size: int) -> None:
        """Begin a slot with the first ``size`` tokens of what ``copy`` gave."""
        for past, kept in zip(self._cache.values(), state, strict=True):
            past[slot, :, :size] = kept[:, :size]

    def _run_alone(self, ids: list[int]) -> dict[str, Any]:
        """The model without our cache: every output by name."""
        feed = {
            "input_ids": np.array([ids], np.int64),
            "attention_mask": np.ones((1, len(ids)), np.int64),
            **self._empty,
        }
        return dict(zip(self._outputs, self._session.run(self._outputs, feed), strict=True))

    def _vocabulary(self, logits: Any) -> int:
        """Width of the logits; asked of the model where its file names it by a symbol."""
        width = logits.shape[-1]
        return width if isinstance(width, int) else int(self._run_alone([0])["logits"].shape[-1])

    def _bind(self, slots: slice) -> Any:
        """An io binding over neighbouring slots: a part of each buffer, so nothing is copied."""
        binding = self._session.io_binding()

        def place(bind: Any, name: str, array: Any) -> None:
            part = array[slots]
            bind(name, "cpu", 0, part.dtype.type, part.shape, part.ctypes.data)

        place(binding.bind_output, "logits", self._logits)  # the first one: see LOGITS
        place(binding.bind_input, "input_ids", self._ids)
        place(binding.bind_input, "attention_mask", self._mask)
        for name, past in self._cache.items():
            place(binding.bind_input, name, past)
            place(binding.bind_output, name.replace("past_key_values", "present"), past)
        return binding

    def _prove(self, spec: ModelSpec) -> None:
        """Refuse a model whose steps in shared slots differ from its run without a cache (one without in-place attention)."""
        prompts = [[1, 2, 3, 4, 5], [7, 8, 9]][: self.slots]
        try:
            for slot, prompt in enumerate(prompts):
                self.prefill(slot, prompt[:2])
                self.prefill(slot, prompt[2:], 2)
            stepped = self.step([6] * len(prompts))
            alone = np.stack([self._run_alone([*prompt, 6])["logits"][0, -1] for prompt in prompts]).astype(np.float32)
        except Exception as error:  # noqa: BLE001 (onnxruntime's errors share no base class)
            raise ModelRefused(f"{spec.weights} can't be run: {str(error).splitlines()[0]}") from None
        if not np.isfinite(alone).all():
            raise ModelRefused(
                f"{spec.weights} answers with numbers that are not finite: the file is damaged, copy it again."
            )
        if np.abs(stepped - alone).max() > 0.05 * max(1.0, float(np.abs(alone).max())):
            raise ModelRefused(
                f"{spec.weights} does not keep its cache in place: export it with `python -m onnxruntime_genai.models.builder`."
            )
        self._length[:] = 0


def _sparse(shape: tuple[int, ...], kind: Any) -> Any:
    """Zeros that cost memory where they were written to and nowhere else, so that unused slots are free.

    Straight from the kernel: malloc gives memory that an earlier model has left, which it has to fill with zeros first. A tutor that
    was reloaded ten times made 415 MB of 131 that way.
    """
    size = math.prod(shape) * np.dtype(kind).itemsize
    if not hasattr(mmap, "MAP_ANONYMOUS"):
        return np.zeros(shape, kind)
    pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_NOHUGEPAGE"):
        with suppress(OSError):  # a kernel without huge pages
            pages.madvise(mmap.MADV_NOHUGEPAGE)
    return np.frombuffer(pages, kind).reshape(shape)
