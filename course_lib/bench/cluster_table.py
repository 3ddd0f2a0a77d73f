"""The figures of `course bench cluster` for people: tables, and their section in COMPARISONS.md."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from course_lib.bench import document, goals

Found = Mapping[str, Any]
Lines = list[list[str]]


def tables(found: Found) -> list[tuple[str, list[str], Lines]]:
    """(title, heads, lines) of each part that was measured."""
    made = [
        ("A cluster's times, seconds", ["", "one node", "three nodes"], _start(found)),
        ("A rollout under load", _ROLLOUT_HEADS, _rollouts(found)),
        ("Accidents under load", _ACCIDENT_HEADS, _accidents(found)),
        ("The autoscaler, seconds from load", _SCALING_HEADS, _scaling(found)),
        ("A cluster at rest, nodes", ["", "MB", "% of a CPU"], _nodes(found)),
        ("A cluster at rest, the control plane's programs", ["", "MB", "% of a CPU"], _programs(found)),
    ]
    return [(title, heads, lines) for title, heads, lines in made if lines]


_COUNTED = ["requests", "per s", "lost", "how", "p99 ms"]
_ROLLOUT_HEADS = ["Deployment", *_COUNTED, "in preStop", "after SIGTERM", "s"]
_ACCIDENT_HEADS = ["", *_COUNTED, "s until all are back"]
_SCALING_HEADS = [
    "cluster",
    "figures known, s after Ready",
    "load seen",
    "decided",
    "new pod Ready",
    "CPU % of request",
]
_NOT = "not measured"


def markdown(found: Found) -> str:
    """The section of COMPARISONS.md."""
    machine = found["machine"]
    parts = [
        f'`make bench ARGS="cluster --json cluster.json"`, {found["date"][:10]}, {machine["cpu"]}, {machine["cpus"]} CPUs, '
        f"Docker Engine {machine['engine']}, kind {machine['kind']}, Kubernetes {found['kubernetes'].removeprefix('v')}, node "
        f"image {found['node_image']}, revision `{found['revision']}`"
        + (f", put together from {found['pieces']} runs." if found["pieces"] > 1 else ".")
        + document.preliminary(found),
        "",
        *document.table(goals.HEADS, goals.lines(found)),
    ]
    for title, heads, lines in tables(found):
        parts += ["", f"**{title}.** {_SAID[title](found)}", "", *document.table(heads, lines)]
    left = found["left"]
    behind = ", ".join(f"`{one}`" for one in left["objects"]) or "nothing"
    parts += [
        "",
        f"**What is left.** Clusters: {left['clusters']}. After each, containers, networks, volumes, its folder with the kubeconfig, "
        f"the ledger's rows, ~/.kube/config and the kernel settings that kubelets change were looked at: {behind} was left or changed.",
    ]
    if both := found["side_by_side"]:
        parts += [
            "",
            f"**Two clusters side by side.** {sum(both['objects'])} containers, networks, volumes, ports and files, of which they share "
            f"{both['shared']}; {both['answering']} of 2 know their own name under a key that both have. When the second is gone, the "
            f"first is {'still Ready, with what was put into it' if both['stays'] else '**not Ready any more**'}.",
        ]
    if lab := found["lab"]:
        parts += [
            "",
            f"**The whole lab.** `make labs LAB=4.4.5` {lab['status']} in {lab['seconds']:.0f} s, {lab['steps_passed']} of 7 steps for "
            "real, with the images there; its cluster's start and end are in it.",
        ]
    return "\n".join(parts)


def _start(found: Found) -> Lines:
    columns = [found["one_node"], found["three_nodes"]]
    if not any(columns):
        return []
    names = {name: None for one in columns if one for name in one["phases"]}
    steps = {name: None for one in columns if one for name in one["kind_steps"]}

    def line(name: str, group: str, key: str) -> list[str]:
        values = [one and (one[group] if group else one).get(key) for one in columns]
        return [name, *(_NOT if value is None else f"{value:.1f}" for value in values)]

    lines = [line("**up**", "", "up_s")]
    for name in names:
        lines.append(line(f"- {name}", "phases", name))
        if name.startswith("kind"):
            lines += [line(f"  - {step}", "kind_steps", step) for step in steps]
    return [
        *lines,
        line("**the image onto all nodes**", "", "load_s"),
        line("**Deployment Ready after apply**", "", "ready_s"),
        line("**down**", "", "down_s"),
    ]


def _rollouts(found: Found) -> Lines:
    rows = [found["rollouts"], *found["rollouts"]["controls"]] if found["rollouts"] else []
    return [
        [
            row["way"],
            *_counted(row),
            *(f"{row[key]:,}" for key in ("answered_in_pre_stop", "answered_after_sigterm")),
            f"{row['seconds']:.1f}",
        ]
        for row in rows
    ]


def _accidents(found: Found) -> Lines:
    rows = {name: row for name, row in (found["accidents"] or {}).items() if isinstance(row, Mapping)}
    return [
        [name, *_counted(row), "" if name == "nothing happens" else ", ".join(f"{one:.1f}" for one in row["seconds"])]
        for name, row in rows.items()
    ]


def _counted(row: Found) -> list[str]:
    how = [f"{row[fate]:,} {fate.replace('_', ' ')}" for fate in ("refused", "cut", "given_up") if row[fate]]
    return [f"{row['requests']:,}", f"{row['rate']:.1f}", f"{row['lost']:,}", ", ".join(how), f"{row['p99_ms']:,.0f}"]


def _scaling(found: Found) -> Lines:
    keys = ("known_s", "seen_s", "decided_s", "ready_s", "cpu")
    return [
        [f"{number}", *("never" if run[key] is None else f"{run[key]:g}" for key in keys)]
        for number, run in enumerate((found["autoscaler"] or {}).get("runs", []), 1)
    ]


def _nodes(found: Found) -> Lines:
    return _usage((found["idle"] or {}).get("nodes", {}))


def _programs(found: Found) -> Lines:
    return _usage((found["idle"] or {}).get("programs", {}))


def _usage(rows: Mapping[str, Found]) -> Lines:
    if not rows:
        return []
    together = {key: sum(row[key] for row in rows.values()) for key in ("memory_mb", "cpu_percent")}
    each = {**rows, "**together**": together}
    return [[name, f"{row['memory_mb']:,.0f}", f"{row['cpu_percent']:.1f}"] for name, row in each.items()]


def _start_said(found: Found) -> str:
    rounds = (found["one_node"] or found["three_nodes"])["rounds"]
    return (
        f"Medians of {rounds} new clusters each; the node image and the programs are there. *Ready* is the overlay `local` applied, with "
        "its one replica, until its rollout is complete. kind's own steps are those that it names."
    )


def _rollouts_said(found: Found) -> str:
    rows = [found["rollouts"], *found["rollouts"]["controls"]]
    ours = rows[0]
    said = (
        f"Rollouts of 3 replicas, {ours['rollouts']} a row, {ours['asked_rate']:g} requests/s asked for, half of them by clients that "
        "keep their connections, half each on a connection of its own; the load outlives the old pods. The rate is the slowest rollout's, "
        "as it really was. *In preStop* and *after SIGTERM* are answers of pods that had been told to go at least a second before, by "
        "the servers' own logs, which hold every answer. kind's door on this machine takes each connection before it asks the node, so one that "
        "the cluster refuses shows as cut."
    )
    missing = {row["way"]: row["answered"] - row["answered_by_logs"] for row in rows}
    if any(missing.values()):
        said += " Answers that no log has: " + ", ".join(f"{name}: {number}" for name, number in missing.items()) + "."
    losses = [error for row in rows for error in row["errors"]]
    return said + (f" What the losses said: {'; '.join(dict.fromkeys(losses)).rstrip('.')}." if losses else "")


def _accidents_said(found: Found) -> str:
    rows = {name: row for name, row in found["accidents"].items() if isinstance(row, Mapping)}
    losses = [error for row in rows.values() for error in row["errors"]]
    return (
        f"{found['accidents']['replicas']} replicas as in k8s/, the same load. *Killed* are all processes of one pod at once, with "
        "what they were doing; *drained* is the worker with most replicas, by `kubectl drain`."
        + (f" What the losses said: {'; '.join(dict.fromkeys(losses)).rstrip('.')}." if losses else "")
    )


def _scaling_said(found: Found) -> str:
    scaler = found["autoscaler"]
    said = (
        f"{scaler['clusters']} fresh clusters of one node; in {scaler['within_limit']} of them a new pod was Ready within 45 s. "
        f"{scaler['rate']:g} chats/s of {scaler['tokens']} tokens begin when the autoscaler has its first figures."
    )
    silent = [run["said"] for run in scaler["runs"] if run["said"]]
    return said + (f" Where nothing happened: {'; '.join(silent)}" if silent else "")


def _nodes_said(found: Found) -> str:
    return "As `docker stats` has it, with the metrics server and nothing of anybody's."


def _programs_said(found: Found) -> str:
    return f"Resident memory, pages that they share counted for each; CPU over {found['idle']['seconds']} s."


_SAID = {
    "A cluster's times, seconds": _start_said,
    "A rollout under load": _rollouts_said,
    "Accidents under load": _accidents_said,
    "The autoscaler, seconds from load": _scaling_said,
    "A cluster at rest, nodes": _nodes_said,
    "A cluster at rest, the control plane's programs": _programs_said,
}
