"""The figures of `course bench serve` for people: a table, and its section in COMPARISONS.md."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from course_lib.bench import document, goals

_NAMES = {"ours": "this server", "bare_engine": "bare engine", "flask": "flask + gunicorn"}
_FIGURES: dict[str, tuple[str, str]] = {
    "tokens/s": ("tokens_per_s", ",.0f"),
    "p50 ms": ("p50_ms", ",.0f"),
    "p99 ms": ("p99_ms", ",.0f"),
    "first token p99 ms": ("ttft_p99_ms", ",.0f"),
    "mixed lengths tokens/s": ("mixed_tokens_per_s", ",.0f"),
    "one client p50 ms": ("one_client_p50_ms", ",.1f"),
    "classifier requests/s": ("classifier.requests_per_s", ",.0f"),
    "classifier p99 ms": ("classifier.p99_ms", ",.1f"),
    "start s": ("start_to_ready_s", ".2f"),
    "RSS MB": ("rss_mb", ",.0f"),
}


def rows(found: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Heads and lines of the table: a column a contestant, a line a figure."""
    entries = {"ours": found["ours"], "bare_engine": found["bare_engine"], **found["peers"]}
    entries = {name: entry for name, entry in entries.items() if entry}
    lines = [[name, *(_cell(entry, *figure) for entry in entries.values())] for name, figure in _FIGURES.items()]
    return ["", *(_NAMES.get(name, name) for name in entries)], lines


def markdown(found: Mapping[str, Any]) -> str:
    """The section of COMPARISONS.md."""
    machine, method, versions = found["machine"], found["method"], found["versions"]
    heads, lines = rows(found)
    cpus = len(set(machine["server_cpus"] + machine["client_cpus"]))
    peers = ", ".join(f"{name} {version}" for name, version in versions["peers"].items())
    shares = ", ".join(f"{task} {share:.0%}" for task, share in found["load_client"]["cpu_share"].items())
    low, high = method["prompt_tokens"]
    least, most = method["mixed_new_tokens"]
    settings = "; ".join(
        f"{_NAMES.get(name, name)} {' '.join(f'{key}={value}' for key, value in entry['settings'].items())}"
        for name, entry in {"bare_engine": found["bare_engine"], **found["peers"]}.items()
    )
    missing = [
        f"- {_NAMES.get(name, name)}, {task}: {why}"
        for name, entry in {"ours": found["ours"], **found["peers"]}.items()
        for task, why in (entry or {}).get("why", {}).items()
    ]
    parts = [
        f'`make bench ARGS="serve --json serve.json"`, {found["date"][:10]}, {machine["cpu"]}, {cpus} CPUs.'
        + (" **Preliminary**: a quick run, or a machine with other work on it." if found["preliminary"] else ""),
        "",
        f"{method['clients']} clients, each asking again as soon as it is answered; prompts of {low} to {high} tokens, no two alike, "
        f"{method['new_tokens']} new tokens (mixed: {least} to {most}); medians of {method['rounds']} rounds in shuffled order, "
        f"{method['seconds']} s a figure after {method['warm_up_seconds']} s of warm-up. Every server has the tutor's same ONNX file; "
        "the peers run onnxruntime-genai's generator on it, each with its own batching. The *bare engine* is the slot loop without HTTP "
        f"in one process. Decoding alone, without prompts and text, makes "
        f"{_cell(found['bare_engine'], 'decode_only_tokens_per_s', ',.0f')} tokens/s.",
        "",
        *document.table(heads, lines),
        "",
        *document.table(goals.HEADS, goals.lines(found)),
        "",
        f"Load by {found['load_client']['program']} and a C program for streams; its share of one CPU: {shares or 'not measured'}. "
        f"Settings, found by trying: {settings}. RSS counts pages that processes share once for each of them. Versions: {peers}.",
    ]
    if missing:
        parts += ["", "No figure:", "", *missing]
    return "\n".join(parts)


def write(found: Mapping[str, Any], where: Path = document.COMPARISONS) -> None:
    """Puts the section between its markers.

    Raises:
        CourseError: the markers are not there.
    """
    document.write("serve", markdown(found), where)


def _cell(entry: Mapping[str, Any], name: str, form: str) -> str:
    outer, _, inner = name.partition(".")
    value = (entry.get(outer) or {}).get(inner) if inner else entry.get(outer)
    return "" if value is None else format(value, form)
