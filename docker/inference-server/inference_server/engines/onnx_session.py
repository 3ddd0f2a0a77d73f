"""Opening an ONNX file, with a sentence when it can't be."""

import hashlib
import logging
import re
from pathlib import Path
from typing import Any

import onnxruntime

from inference_server.errors import ModelRefused
from inference_server.models import check_whole

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
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        log.debug("onnxruntime's own words", exc_info=error)
        kind = re.search(r"\] : \d+ : (\w+)", str(error))
        raise ModelRefused(
            f"{path} can't be loaded: it is truncated, damaged or of a newer kind ({kind[1] if kind else type(error).__name__}). "
            "Copy it again, with the .data file beside it if it has one."
        ) from None
