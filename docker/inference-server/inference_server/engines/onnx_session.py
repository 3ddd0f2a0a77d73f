"""Opening an ONNX file, with a sentence when it can't be."""

import hashlib
import logging
import mmap
import os
import re
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from inference_server.errors import ModelRefused
from inference_server.models import check_whole

# Since 1.29 onnxruntime reports what it runs to its maker, unless this is said before it is loaded.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
import onnxruntime

log = logging.getLogger("inference_server.engine")
FATAL_ONLY = 4  # what goes wrong is said once, by us


def open_session(path: Path, threads: int, sha256: str | None = None) -> Any:
    """An onnxruntime session on the CPU. ``sha256``, where the model's card has it, is compared first. Raises ModelRefused."""
    check_whole(path)
    if sha256 is not None and hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
        raise ModelRefused(f"{path} is not the file its model.json describes (sha256 differs): copy both again.")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = FATAL_ONLY
    try:
        with ExitStack() as held:
            weights = {file.name: held.enter_context(_mapped(file)) for file in weights_beside(path)}
            options.add_external_initializers_from_files_in_memory(
                list(weights), list(weights.values()), [len(content) for content in weights.values()]
            )
            return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        log.debug("onnxruntime's own words", exc_info=error)
        kind = re.search(r"\] : \d+ : (\w+)", str(error))
        raise ModelRefused(
            f"{path} can't be loaded: it is truncated, damaged or of a newer kind ({kind[1] if kind else type(error).__name__}). "
            "Copy it again, with the .data file beside it if it has one."
        ) from None


def weights_beside(path: Path) -> list[Path]:
    """The files with the weights of a model that is larger than one protobuf may be: model.onnx.data, or one a tensor."""
    files = (file for file in path.parent.iterdir() if file.suffix == ".data" or file.name.startswith(f"{path.name}."))
    return sorted(file for file in files if file.is_file() and file.stat().st_size)


def _mapped(path: Path) -> mmap.mmap:
    """A file for onnxruntime to copy from. Left to itself it maps the file for good, and whoever shortens that ends the process."""
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
