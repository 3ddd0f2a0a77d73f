"""How a notebook shows things: HTML for people, the same in plain text for terminals, tests and code hosts."""

from __future__ import annotations

import html
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_for_filename
from pygments.util import ClassNotFound

if TYPE_CHECKING:
    from course_lib.lab.store import Evidence

_GREY = "color:var(--jp-ui-font-color2,#666)"
_MONO = "font-family:var(--jp-code-font-family,monospace);font-size:90%"


class Shown:
    """Something with two faces, chosen by the front end."""

    def __init__(self, markup: str, text: str) -> None:
        self._markup, self._text = markup, text

    def _repr_html_(self) -> str:
        return self._markup

    def __repr__(self) -> str:
        return self._text


def in_notebook() -> bool:
    """Whether a front end looks on that can show HTML."""
    ipython = sys.modules.get("IPython")
    return bool(ipython and ipython.get_ipython() and "zmqshell" in type(ipython.get_ipython()).__module__)


def show(markup: str, text: str) -> None:
    """Shows something once."""
    if in_notebook():
        from IPython.display import display

        display(Shown(markup, text))
    else:
        print(text)


class Live:
    """One place in the output that is drawn anew; a code host keeps its last state."""

    def __init__(self) -> None:
        self._handle: Any = None

    def draw(self, markup: str, text: str) -> None:
        if not in_notebook():
            return
        from IPython.display import display

        if self._handle is None:
            self._handle = display(Shown(markup, text), display_id=True)
        else:
            self._handle.update(Shown(markup, text))

    def draw_text(self, text: str) -> None:
        """Draws plain lines, as a terminal would."""
        self.draw(f'<pre style="{_MONO};{_GREY};margin:2px 0;line-height:1.35">{html.escape(text)}</pre>', text)


def command(line: str) -> None:
    """Shows the exact command that runs."""
    show(
        f'<div style="{_MONO};white-space:pre-wrap;border-left:3px solid #9ab;padding:2px 8px;margin:2px 0;{_GREY}">$ {html.escape(line)}</div>',
        f"$ {line}",
    )


def table(rows: Sequence[Mapping[str, object]], *, caption: str = "") -> None:
    """Shows rows of equal keys as a table."""
    if not rows:
        return
    heads = list(rows[0])
    right = {h for h in heads if all(isinstance(r[h], (int, float)) or str(r[h])[:1].isdigit() for r in rows)}

    def cell(tag: str, head: str, value: object) -> str:
        return f'<{tag} style="text-align:{"right" if head in right else "left"};padding:2px 10px">{html.escape(str(value))}</{tag}>'

    body = "".join("<tr>" + "".join(cell("td", h, r[h]) for h in heads) + "</tr>" for r in rows)
    head = "<tr>" + "".join(cell("th", h, h) for h in heads) + "</tr>"
    markup = f'<table style="border-collapse:collapse"><caption style="text-align:left;{_GREY}">{html.escape(caption)}</caption>{head}{body}</table>'
    widths = {h: max(len(h), *(len(str(r[h])) for r in rows)) for h in heads}

    def line(values: Sequence[object]) -> str:
        cells = zip(heads, values, strict=True)
        return "  ".join(f"{v!s:>{widths[h]}}" if h in right else f"{v!s:<{widths[h]}}" for h, v in cells).rstrip()

    lines = [line(heads), *(line([r[h] for h in heads]) for r in rows)]
    show(markup, "\n".join(([caption] if caption else []) + lines))


def file(path: Path, *, first: int = 1, last: int | None = None) -> None:
    """Shows a file, or some of its lines, with its syntax in colour."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()[first - 1 : last]
    text = "\n".join(lines)
    name = path.name if "Dockerfile" not in path.name else "Dockerfile"
    try:
        lexer = get_lexer_for_filename(name)
        body = highlight(
            text, lexer, HtmlFormatter(noclasses=True, linenos="inline", linenostart=first, nobackground=True)
        )
    except ClassNotFound:
        body = f"<pre>{html.escape(text)}</pre>"
    shown = _short(path)
    show(f'<div style="{_GREY}">{html.escape(shown)}</div><div style="{_MONO}">{body}</div>', f"{shown}\n{text}")


def _short(path: Path) -> str:
    from course_lib.settings import CHECKOUT, settings

    for root, name in ((settings().work_dir, "work"), (CHECKOUT, "")):
        if path.is_relative_to(root):
            return str(Path(name) / path.relative_to(root))
    return path.name


_COLOURS = {
    "passed": "#2a7d4f",
    "not_yet": "#b3541e",
    "not_attempted": "#777",
    "failed": "#b3261e",
    "skipped": "#777",
    "hint": "#3a5f8a",
}
_WORDS = {
    "passed": "passed",
    "not_yet": "not yet",
    "not_attempted": "not attempted",
    "failed": "failed",
    "skipped": "skipped",
    "hint": "hint",
}


def verdict(title: str, status: str, lines: Sequence[tuple[str, str]] = ()) -> None:
    """Shows how something went: a coloured bar, and lines of (label, text) under it."""
    colour, word = _COLOURS[status], _WORDS[status]
    rows = "".join(
        f'<div><span style="{_GREY};display:inline-block;min-width:7em">{html.escape(k)}</span>'
        f'<span style="white-space:pre-wrap">{html.escape(v)}</span></div>'
        for k, v in lines
    )
    show(
        f'<div style="border-left:4px solid {colour};padding:4px 12px;margin:4px 0"><b style="color:{colour}">{word}</b> · {html.escape(title)}{rows}</div>',
        "\n".join([f"{word} · {title}", *(f"  {k}: {v}" for k, v in lines)]),
    )


def step_passed(step_id: str, title: str, found: Sequence[Evidence], seconds: float) -> None:
    """Shows what a step read back."""
    lines = [
        (one.fact, f"{one.object}: " + ", ".join(f"{k}={_brief(v)}" for k, v in one.read.items())) for one in found
    ]
    items = "".join(
        f'<div style="{_MONO}">{html.escape(fact)} · <span style="{_GREY}">{html.escape(said)}</span></div>'
        for fact, said in lines
    )
    show(
        f'<details style="border-left:4px solid {_COLOURS["passed"]};padding:4px 12px;margin:4px 0"><summary><b style="color:{_COLOURS["passed"]}">'
        f"step {step_id} done</b> · {html.escape(title)} · {len(found)} readings in {seconds:.1f} s</summary>{items}</details>",
        "\n".join(
            [
                f"step {step_id} done · {title} · {len(found)} readings in {seconds:.1f} s",
                *(f"  {f}: {s}" for f, s in lines),
            ]
        ),
    )


def _brief(value: object) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."
