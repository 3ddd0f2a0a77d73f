"""One JSON object a line on stdout, so that a log store needs no pattern. Questions, answers and documents are never logged."""

import logging
import sys
import time
from typing import Any

from pydantic_core import to_json


class JsonLines(logging.Formatter):
    """Time (UTC), level, logger, message, then whatever ``extra={"fields": {...}}`` adds."""

    def format(self, record: logging.LogRecord) -> str:
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, Any] = {
            "time": f"{moment}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line.update(getattr(record, "fields", {}))
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return to_json(line, fallback=str, inf_nan_mode="constants").decode()


def set_up(level: str) -> None:
    """Send every logger's lines to stdout in this form; those of libraries from warning on."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("opentelemetry").setLevel(
        logging.ERROR
    )  # a collector that is away is no more than one line a batch
    logging.getLogger("rag_service").setLevel(level.upper())
