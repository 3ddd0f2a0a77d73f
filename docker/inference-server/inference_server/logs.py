"""One JSON object a line on stdout, so that a log store needs no pattern. Prompts and answers are never logged."""

import functools
import logging
import sys
import time
from typing import Any

from pydantic_core import to_json


class JsonLines(logging.Formatter):
    """Time (UTC), level, logger, message, then whatever ``extra={"fields": {...}}`` adds."""

    def format(self, record: logging.LogRecord) -> str:
        moment = _second(int(record.created))
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


@functools.lru_cache(2)
def _second(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))


def set_up(level: str) -> None:
    """Send every logger's lines to stdout in this form; uvicorn's own are shown from warning on."""
    # Looked up for each record otherwise, and no line of ours has them.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging._srcfile = None  # the place in the source (docs.python.org, Logging HOWTO, Optimization)
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("inference_server").setLevel(level.upper())
