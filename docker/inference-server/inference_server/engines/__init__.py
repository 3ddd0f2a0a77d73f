"""Engines: each takes one model version, from disk or by its address elsewhere, and computes with it. ``load`` picks the one a spec asks for.

The libraries are imported when a model needs them, on the thread that loads it, while the server already answers /health.
"""

from inference_server.engines.base import Embed, Generate, Predict
from inference_server.models import ModelSpec, unreadable
from inference_server.settings import Settings, usable_cpus

USEFUL_THREADS = 4  # the models that come with the server get slower beyond that


def load(spec: ModelSpec, settings: Settings) -> Generate | Predict | Embed:
    """Load one model version. Raises ModelRefused with a sentence."""
    try:
        return _load(spec, settings)
    except PermissionError as error:
        raise unreadable(spec.folder, error) from None


def _load(spec: ModelSpec, settings: Settings) -> Generate | Predict | Embed:
    threads = settings.engine_threads or max(1, min(USEFUL_THREADS, usable_cpus() - 1))
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
    from inference_server.engines.generate import GenerateEngine, SlotModel

    longest = settings.max_prompt_tokens + settings.max_new_tokens
    tokenizer = ChatTokenizer(spec.folder)
    model: SlotModel
    if spec.engine == "onnx":
        from inference_server.engines.onnx_slots import OnnxSlots

        model = OnnxSlots(spec, settings.slots, threads, longest)
    else:
        from inference_server.engines.hf_slots import open_slots

        model = open_slots(spec, settings.slots, longest)
    return GenerateEngine(spec.id, model, tokenizer, settings)
