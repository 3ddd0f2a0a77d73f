"""What an executed notebook must not hide: errors, swallowed exceptions, shell escapes, steps that did not run."""

from __future__ import annotations

import ast

import nbformat
from IPython.core.inputtransformer2 import TransformerManager

from course_lib.lab.catalog import Lab


def broken(executed: nbformat.NotebookNode, lab: Lab) -> list[str]:
    """The rules that an executed notebook breaks, each as a sentence that names the cell."""
    found = []
    for number, cell in enumerate(executed.cells, 1):
        if cell.cell_type != "code":
            continue
        where = f"cell {number} ({_first_line(cell.source)})"
        found += [f"{where} {what}" for what in _of_source(cell.source) + _of_cell(cell)]
    tags: dict[str, list[nbformat.NotebookNode]] = {}
    for cell in executed.cells:
        for tag in cell.metadata.get("tags", []):
            tags.setdefault(tag, []).append(cell)
    for step in lab.steps:
        cells = tags.get(f"step-{step.id}", [])
        if not cells:
            found.append(f"no cell carries the tag step-{step.id}")
        elif any(cell.get("execution_count") is None for cell in cells):
            found.append(f"a cell of step {step.id} did not run")
    return found


def _first_line(source: str) -> str:
    line = next((line for line in source.splitlines() if line.strip()), "empty")
    return line if len(line) <= 50 else line[:49] + "…"


def _of_source(source: str) -> list[str]:
    if TransformerManager().transform_cell(source).strip() != source.strip():
        return ["uses `!`, `?` or a magic; what it does would pass unseen when it fails"]
    try:
        tree = ast.parse(source)
    except SyntaxError as error:
        return [f"is not Python: {error.msg}"]
    return [
        "catches every exception and does not raise one: a failure would look like success"
        for node in ast.walk(tree)
        if isinstance(node, ast.ExceptHandler)
        and _catches_all(node)
        and not any(isinstance(inner, ast.Raise) for inner in ast.walk(node))
    ]


def _catches_all(handler: ast.ExceptHandler) -> bool:
    names = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any(
        name is None or (isinstance(name, ast.Name) and name.id in ("Exception", "BaseException")) for name in names
    )


def _of_cell(cell: nbformat.NotebookNode) -> list[str]:
    found = []
    if "raises-exception" in cell.metadata.get("tags", []):
        found.append("carries the tag raises-exception, which lets errors pass")
    for output in cell.get("outputs", []):
        if output.output_type == "error":
            found.append(f"ended in {output.ename}: {output.evalue.splitlines()[0] if output.evalue else ''}")
        elif (
            output.output_type == "stream"
            and output.name == "stderr"
            and "Traceback (most recent call last)" in output.text
        ):
            found.append("printed a traceback")
    return found
