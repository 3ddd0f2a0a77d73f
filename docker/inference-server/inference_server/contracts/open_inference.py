"""The messages of open_inference.proto.

Loaded from its compiled descriptor, not from generated Python: generated code refuses every protobuf older than the compiler that
wrote it, and a base image such as NGC's brings a protobuf of its own.
"""

from pathlib import Path
from typing import Any

from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClassesForFiles

SERVICE = "inference.GRPCInferenceService"
FILE = "open_inference.proto"


def _load() -> dict[str, Any]:
    """Message name, without its package, to message class."""
    pool = DescriptorPool()
    described = FileDescriptorSet.FromString(Path(__file__).with_suffix(".binpb").read_bytes())
    for file in described.file:
        pool.Add(file)
    found = GetMessageClassesForFiles([FILE], pool)
    return {name.removeprefix("inference."): kind for name, kind in found.items()}


MESSAGES = _load()
