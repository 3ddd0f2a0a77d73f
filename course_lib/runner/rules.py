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
    found = [
        "catches every exception and does not end in a raise: a failure would look like success"
        for node in ast.walk(tree)
        if isinstance(node, ast.ExceptHandler) and _catches_all(node) and not isinstance(node.body[-1], ast.Raise)
    ]
    found += [
        "suppresses every exception: a failure would look like success"
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and _last_name(node.func) == "suppress" and any(map(_is_broad, node.args))
    ]
    return found + _of_evidence(tree)


def _catches_all(handler: ast.ExceptHandler) -> bool:
    names = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any(name is None or _is_broad(name) for name in names)


def _is_broad(node: ast.expr) -> bool:
    return _last_name(node) in ("Exception", "BaseException")


def _last_name(node: ast.expr) -> str:
    """`suppress` of suppress and of contextlib.suppress."""
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _of_evidence(tree: ast.AST) -> list[str]:
    """Evidence is what the rooms read: a cell neither records it itself nor reaches behind a room's door."""
    found, ours = [], set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            whole = [(one.name, one.asname or one.name.partition(".")[0]) for one in node.names]
        elif isinstance(node, ast.ImportFrom):
            whole = [(f"{node.module}.{one.name}", one.asname or one.name) for one in node.names]
        else:
            continue
        for path, name in whole:
            if path.partition(".")[0] != "course_lib":
                continue
            ours.add(name)
            if path.startswith(("course_lib.lab.store", "course_lib.lab.steps")) or path == "course_lib.lab.record":
                found.append(f"imports {path}: only the rooms record evidence")
            elif any(part.startswith("_") for part in path.split(".")):
                found.append(f"imports {path}, which is private")
    for node in ast.walk(tree):
        if not isinstance(node, ast.Attribute) or _root(node) not in ours:
            continue
        if node.attr in ("record", "store", "steps") and _last_name(node.value) == "lab":
            found.append(f"uses lab.{node.attr}: only the rooms record evidence")
        elif node.attr.startswith("_") and not node.attr.startswith("__"):
            found.append(f"uses {node.attr}, which is private to its module")
    return found


def _root(node: ast.expr) -> str:
    """The name that a chain of attributes starts with; empty where it starts with a call or a literal."""
    while isinstance(node, ast.Attribute):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""


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
