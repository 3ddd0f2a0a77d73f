"""Imports the libraries the server starts with, so that their bytecode, and only theirs, is written into the image."""

import importlib
import os

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # a build reports to nobody either; see engines/onnx_session.py
for name in (
    "fastapi", "fastapi.responses", "uvicorn", "uvicorn.loops.uvloop", "uvicorn.protocols.http.httptools_impl",
    "uvicorn.lifespan.on", "onnxruntime", "numpy", "tokenizers", "jinja2", "prometheus_client",
    "grpclib.server", "google.protobuf.message_factory", "httpx2",
):  # fmt: skip
    importlib.import_module(name)
