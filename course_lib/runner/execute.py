"""Executing one notebook with papermill, and telling whoever looks on how far it is."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import papermill
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from papermill.exceptions import PapermillExecutionError
from traitlets.config import Config

#: A cell may build a base image on a slow line; longer than this it hangs.
CELL_TIMEOUT_S = 1800

#: Called when a cell starts: its number from 1, how many there are, its step or first line.
OnCell = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Executed:
    """What became of a notebook."""

    notebook: nbformat.NotebookNode
    error: str
    """Empty when every cell ran to its end."""
    seconds: float
    first_cell_at: float
    """Seconds since the epoch; 0 when no cell was reached."""
    overhead: float
    """First cell's start to last cell's end, by papermill's own times: the share of it that no cell accounts for."""


def execute(
    notebook: Path, output: Path, *, environment: Mapping[str, str], parameters: Mapping[str, Any], on_cell: OnCell
) -> Executed:
    """Runs a notebook from top to bottom into `output`; a failing cell ends it and is part of the result.

    Ctrl-C is passed on after the kernel was shut down and what there is was saved.
    """
    started = time.monotonic()
    first: list[float] = []
    saved = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)
    error = ""

    def on_cell_start(cell: nbformat.NotebookNode, cell_index: int, **_: Any) -> None:
        if cell.cell_type != "code":
            return
        first[:] = first or [time.time()]
        on_cell(cell_index + 1, total, _label(cell))

    total = len(nbformat.read(notebook, as_version=4).cells)
    try:
        papermill.execute_notebook(
            notebook,
            output,
            parameters=dict(parameters) or None,
            kernel_name="python3",
            cwd=str(notebook.parent),
            progress_bar=False,
            execution_timeout=CELL_TIMEOUT_S,
            start_timeout=120,
            on_cell_start=on_cell_start,
            # Unix sockets: no port to collide on, and nothing another user of this machine could listen to.
            config=Config({"KernelManager": {"transport": "ipc"}}),
        )
    except PapermillExecutionError as failed:
        error = f"cell {failed.cell_index + 1}: {failed.ename}: {failed.evalue}"
    except DeadKernelError:
        error = "the kernel died (killed from outside, or out of memory)"
    except CellTimeoutError:
        error = f"a cell did not end within {CELL_TIMEOUT_S // 60} minutes"
    except RuntimeError as failed:  # what the client raises when a kernel does not start
        error = f"the kernel did not start: {failed}"
    finally:
        for name, value in saved.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
    written = nbformat.read(output, as_version=4) if output.exists() else nbformat.read(notebook, as_version=4)
    return Executed(written, error, time.monotonic() - started, first[0] if first else 0.0, overhead(written))


def _label(cell: nbformat.NotebookNode) -> str:
    step = next((tag for tag in cell.metadata.get("tags", []) if tag.startswith("step-")), "")
    return step.replace("step-", "step ") or next((line for line in cell.source.splitlines() if line.strip()), "")[:60]


def overhead(executed: nbformat.NotebookNode) -> float:
    """The share of a run between its first cell's start and its last cell's end in which no cell ran."""
    from datetime import datetime

    times = [
        (datetime.fromisoformat(p["start_time"]), datetime.fromisoformat(p["end_time"]))
        for cell in executed.cells
        if (p := cell.metadata.get("papermill", {})) and p.get("start_time") and p.get("end_time")
    ]
    if not times:
        return 0.0
    whole = (max(end for _, end in times) - min(start for start, _ in times)).total_seconds()
    inside = sum((end - start).total_seconds() for start, end in times)
    return 1 - inside / whole if whole else 0.0
