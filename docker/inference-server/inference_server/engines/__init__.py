"""Engines: each takes one model version, from disk or by its address elsewhere, and computes with it. ``load`` picks the one a spec asks for.

The libraries are imported when a model needs them, on the thread that loads it, while the server already answers /health.
"""

from pathlib import Path

from inference_server.engines.base import Embed, Generate, Predict
from inference_server.models import ModelSpec, unreadable
from inference_server.settings import Settings, usable_cpus

SMALL = (
    32 << 20
)  # bytes of weights that lie in a processor's caches: threads that share such a run wait longer than they compute
SMALL_INSTANCES = 4  # beyond that the models that come with the server gain nothing


def load(spec: ModelSpec, settings: Settings) -> Generate | Predict | Embed:
    """Load one model version. Raises ModelRefused with a sentence."""
    try:
        return _load(spec, settings)
    except PermissionError as error:
        raise unreadable(spec.folder, error) from None


def _load(spec: ModelSpec, settings: Settings) -> Generate | Predict | Embed:
    instances, threads = _side_by_side(spec, settings)
    if spec.kind == "predict":
        from inference_server.engines.onnx_predict import PredictEngine

        return PredictEngine(spec, settings, threads)
    if spec.kind == "embed":
        from inference_server.engines.numpy_embed import EmbedEngine

        return EmbedEngine(spec, settings)
    if spec.engine == "openai":
        from inference_server.engines.upstream_text import UpstreamText

        return UpstreamText(spec, settings)
    from inference_server.engines.chat import ChatTokenizer
    from inference_server.engines.generate import GenerateEngine
    from inference_server.engines.instance import SlotModel

    longest = settings.max_prompt_tokens + settings.max_new_tokens
    tokenizer = ChatTokenizer(spec.folder)
    models: list[SlotModel]
    if spec.engine == "onnx":
        from inference_server.engines.onnx_slots import OnnxSlots

        slots = [settings.slots // instances + (number < settings.slots % instances) for number in range(instances)]
        models = [OnnxSlots(spec, each, threads, longest) for each in slots]
    else:
        from inference_server.engines.hf_slots import open_slots

        models = [open_slots(spec, settings.slots, longest)]
    return GenerateEngine(spec.id, models, tokenizer, settings)


def _side_by_side(spec: ModelSpec, settings: Settings) -> tuple[int, int]:
    """(instances of a model, threads of each). A small one gets an instance a CPU; the weights of a large one are read from memory at
    every step, which several instances would do several times."""
    small = spec.engine == "onnx" and _bytes(spec.weights) <= SMALL
    cpus = usable_cpus()
    threads = settings.engine_threads or (min(cpus, SMALL_INSTANCES) if small else max(1, cpus - (cpus > 2)))
    instances = settings.instances or (threads if small else 1)
    instances = min(instances, settings.slots)
    return instances, max(1, threads // instances)


def _bytes(weights: Path) -> int:
    from inference_server.engines.onnx_session import weights_beside

    return sum(file.stat().st_size for file in (weights, *weights_beside(weights)) if file.is_file())
