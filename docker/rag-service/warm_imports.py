"""Imports what the service starts with, so that its bytecode, and only that, is written into the image."""

import importlib

for name in (
    "rag_service.cli", "rag_service.server", "rag_service.health", "rag_service.backup", "rag_service.ingest",
    "uvicorn.loops.uvloop", "uvicorn.protocols.http.httptools_impl", "uvicorn.lifespan.on",
    "opentelemetry.exporter.otlp.proto.http.trace_exporter",
):  # fmt: skip
    importlib.import_module(name)
