"""The figures of `course bench stack` for people: tables, and their section in COMPARISONS.md."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from course_lib.bench import document, goals

Found = Mapping[str, Any]
Lines = list[list[str]]
_QUANTILES = ("p50_ms", "p95_ms", "p99_ms")


def tables(found: Found) -> list[tuple[str, list[str], Lines]]:
    """(title, heads, lines) of each part that was measured."""
    made = [
        ("Start, seconds until every service is healthy", ["", "s"], _start(found)),
        ("A question, milliseconds", ["", *_six_heads()], _answers(found)),
        ("Quality of the answers", ["questions about", "", "recall@1", "recall@3", "right"], _quality(found)),
        ("Chroma's index, the course's documents", [*_INDEX_HEADS, "recall@3", "search p50 ms"], _documents(found)),
        ("Chroma's index, many vectors", [*_INDEX_HEADS, "recall@10", "p50 ms", "p95 ms", "s to fill"], _many(found)),
        ("A replica dies", ["", "requests", "lost", "p99 ms", "streams", "cut"], _kills(found)),
        ("Replicas come and go", ["", "requests", "lost", "p99 ms", "p99 ms before"], _scaling(found)),
        ("The front door, milliseconds", ["", "p50", "p95", "p99"], _door(found)),
        ("Memory and CPU", ["", "MB at rest", "MB busy", "% of a CPU at rest", "% busy"], _usage(found)),
    ]
    return [(title, heads, lines) for title, heads, lines in made if lines]


_INDEX_HEADS = ["links", "candidates, building", "candidates, searching"]


def markdown(found: Found) -> str:
    """The section of COMPARISONS.md."""
    machine = found["machine"]
    parts = [
        f'`make bench ARGS="stack --json stack.json"`, {found["date"][:10]}, {machine["cpu"]}, {machine["cpus"]} CPUs, '
        f"Docker Engine {machine['engine']}, Compose {machine['compose']}, images from "
        f"{'a registry' if found['images'] == 'registry' else 'Debian packages'}, revision `{found['revision']}`."
        + document.preliminary(found),
        "",
        *document.table(goals.HEADS, goals.lines(found)),
    ]
    for title, heads, lines in tables(found):
        parts += ["", f"**{title}.** {_SAID[title](found)}", "", *document.table(heads, lines)]
    return "\n".join(parts)


def _start(found: Found) -> Lines:
    start = found["start"]
    if not start:
        return []
    rows = {
        "images to build": start["built_s"],
        "images there, nothing running": start["cold_s"],
        "`up` of what runs already": start["again_s"],
        "`down`": start["down_s"],
        "`up` after it, the volumes kept": start["up_after_down_s"],
    }
    return [[name, "not measured" if value is None else f"{value:.1f}"] for name, value in rows.items()]


def _six_heads() -> list[str]:
    return [f"{clients}, {quantile}" for clients in ("1 client", "8 clients") for quantile in ("p50", "p95", "p99")]


def _answers(found: Found) -> Lines:
    lines = []
    if rag := found["rag"]:
        for name in ("answer", "embed", "search", "generate"):
            title = "**answer, through the front door**" if name == "answer" else name
            lines.append([title, *_six(rag, name)])
    if found["cache"]:
        lines.append(["**answer, from Redis**", *_six(found["cache"], "answer")])
    return lines


def _six(measured: Found, name: str) -> list[str]:
    return [f"{measured['clients'][clients][f'{name}_{q}']:.1f}" for clients in ("1", "8") for q in _QUANTILES]


def _quality(found: Found) -> Lines:
    groups = {"glossary": "the glossary", "documents": "the course's pages", "outside": "neither"}
    return [
        [groups.get(name, name), f"{group['questions']}", *(_share(group.get(key)) for key in _QUALITY)]
        for name, group in (found["quality"] or {}).items()
    ]


_QUALITY = ("recall@1", "recall@3", "right")


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _index(row: Found) -> list[str]:
    return [f"{row[name]}" for name in ("max_neighbors", "ef_construction", "ef_search")]


def _documents(found: Found) -> Lines:
    rows = list(found["index_on_documents"] or [])
    if rows and found["quality"]:
        rows.insert(0, {"max_neighbors": 16, "ef_construction": 100, "ef_search": 100, "quality": found["quality"]})
    return [[*_index(row), *_documents_quality(row["quality"])] for row in rows]


def _documents_quality(groups: Found) -> list[str]:
    """Of all questions that have an answer in the documents."""
    inside = [group for group in groups.values() if "recall@3" in group]
    asked = sum(group["questions"] for group in inside)
    recall = sum(group["recall@3"] * group["questions"] for group in inside) / asked
    search = sum(group["search p50 s"] * group["questions"] for group in inside) / asked
    return [f"{recall:.3f}", f"{search * 1000:.1f}"]


def _many(found: Found) -> Lines:
    index = found["index"]
    if not index:
        return []
    lines = [
        [*_index(row), f"{row['recall']:.3f}", f"{row['p50_ms']:.1f}", f"{row['p95_ms']:.1f}", f"{row['build_s']:.1f}"]
        for row in index["variants"]
    ]
    return [*lines, ["exact", "", "", "1.000", f"{index['exact_p50_ms']:.1f}", "", ""]]


def _kills(found: Found) -> Lines:
    kills = found["kills"]
    if not kills:
        return []
    runs = {"none is killed": kills["without"]}
    runs |= {f"{run['way']} after {run['moment_s']:g} s": run for run in kills["runs"]}
    return [
        [
            name,
            *(f"{run[key]:,}" for key in ("requests", "lost")),
            f"{run['p99_ms']:,.0f}",
            *(f"{run[key]:,}" for key in ("streams", "streams_cut")),
        ]
        for name, run in runs.items()
    ]


def _scaling(found: Found) -> Lines:
    return [
        [
            f"round {number}",
            f"{run['requests']:,}",
            f"{run['lost']}",
            f"{run['p99_ms']:,.0f}",
            f"{run['steady_p99_ms']:,.0f}",
        ]
        for number, run in enumerate((found["scaling"] or {}).get("runs", []), 1)
    ]


def _door(found: Found) -> Lines:
    ways = {"through": "through nginx and TLS", "straight": "straight to the server's container"}
    door = found["door"]
    return [[said, *(f"{door[f'{way}_{q}']:.2f}" for q in _QUANTILES)] for way, said in ways.items()] if door else []


def _usage(found: Found) -> Lines:
    usage = found["usage"]
    if not usage:
        return []
    names = [f"{name}_{when}" for name in ("memory_mb", "cpu_percent") for when in ("idle", "busy")]
    together = {name: sum(one[name] for one in usage.values()) for name in names}
    rows = {**usage, "**together**": together}
    return [[service, *(f"{one[name]:.0f}" for name in names)] for service, one in rows.items()]


def _start_said(found: Found) -> str:
    start = found["start"]
    built = (
        f" The first line is one start without the {start['images_built']} images that the stack builds, the build cache as it "
        f"was ({start['build_cache']})."
        if start["built_s"] is not None
        else ""
    )
    return f"{start['containers']} containers, medians of {start['rounds']} rounds.{built}"


def _answers_said(found: Found) -> str:
    rag, cache, ingest = found["rag"], found["cache"], found["ingest"]
    said = (
        f"{ingest['documents']} documents in {ingest['passages']} passages, stored in {ingest['seconds']:.1f} s. Each client asks the "
        "committed questions in turn, the next one as soon as it has an answer; the stages are the service's own clock."
    )
    if rag:
        rates = " and ".join(f"{rag['clients'][clients]['per_s']:.0f}" for clients in ("1", "8"))
        said += f" {rag['requests_a_round']} questions a round, medians of {rag['rounds']} rounds; {rates} answers/s."
    if cache:
        rates = " and ".join(f"{cache['clients'][clients]['per_s']:.0f}" for clients in ("1", "8"))
        said += (
            f" With Redis {cache['from_cache']:.0%} of the answers came from it, {rates} a second; an answer that it does not have "
            f"yet takes {cache['miss_p50_ms']:.1f} ms (p50)."
        )
        if cache["refused"]:
            said += f" The front door's limit of 200 requests a second an address refused {cache['refused']}, which were asked again."
    return said


def _quality_said(found: Found) -> str:
    return (
        "By `python -m rag_service evaluate` on the committed questions: the share whose known passage is the first, or among the "
        "first three; and the share of answers that hold its sentence (for questions about neither: that there is no answer)."
    )


def _documents_said(found: Found) -> str:
    return (
        f"The {found['ingest']['passages']} passages again, in collections whose index has other settings (the first line is what "
        "the service asks for); all committed questions that have an answer there. Words are searched for beside vectors, "
        "without this index."
    )


def _many_said(found: Found) -> str:
    index = found["index"]
    return (
        f"{index['vectors']:,} vectors of {index['dimensions']} numbers, by the server's embedder from paragraphs of Python's own "
        f"documentation strings; {index['queries']} others are searched for, one client, over Chroma's HTTP API. recall@10 is the share "
        "of the ten truly nearest. *exact* compares with every vector, by NumPy in the bench's own process, without HTTP."
    )


def _kills_said(found: Found) -> str:
    kills = found["kills"]
    return (
        f"{kills['rate']:g} requests/s and {kills['stream_rate']:g} streams/s for {kills['seconds']:g} s over three replicas. *crash*: "
        "all processes are killed inside, and the restart policy brings the replica back; *docker kill*: it stays away until somebody "
        f"starts it. Of {kills['requests']:,} requests {kills['lost']} were lost; of {kills['streams']:,} streams "
        f"{kills['streams_cut']} were cut in mid-answer and {kills['streams_refused']} never began."
        + (f" What the losses said: {'; '.join(kills['errors'])}." if kills["errors"] else "")
    )


def _scaling_said(found: Found) -> str:
    return f"{found['scaling']['rate']:g} requests/s, from 1 to 3 to 2 replicas; the last column is one replica left alone, just before."


def _door_said(found: Found) -> str:
    door = found["door"]
    return (
        f"One row for the classifier, open connections, the two ways in turn: {door['p50_more_ms']:.2f} ms more at p50, "
        f"{door['p50_ratio']:.2f} times."
    )


def _usage_said(found: Found) -> str:
    return "As `docker stats` has it, at rest and while 8 clients ask the RAG service."


_SAID = {
    "Start, seconds until every service is healthy": _start_said,
    "A question, milliseconds": _answers_said,
    "Quality of the answers": _quality_said,
    "Chroma's index, the course's documents": _documents_said,
    "Chroma's index, many vectors": _many_said,
    "A replica dies": _kills_said,
    "Replicas come and go": _scaling_said,
    "The front door, milliseconds": _door_said,
    "Memory and CPU": _usage_said,
}
