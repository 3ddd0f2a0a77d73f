"""What the course left on this machine, by ledger and by label, and its removal."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from course_lib import ledger, reaper, shell
from course_lib.errors import CourseError
from course_lib.ledger import Row, Session
from course_lib.settings import CHECKOUT, settings


@dataclass
class Survey:
    """What is there. `left` should not be; `kept` and `in_use` are there on purpose."""

    left: list[tuple[str, str]] = field(default_factory=list)
    in_use: list[tuple[str, str]] = field(default_factory=list)
    kept: list[tuple[str, str, str]] = field(default_factory=list)
    removed: list[tuple[str, str]] = field(default_factory=list)
    build_cache: str = ""
    engine: bool = True
    """Whether the engine answered; if not, nobody knows what it holds."""

    def as_json(self) -> dict[str, Any]:
        def named(pairs: list[tuple[str, str]]) -> list[dict[str, str]]:
            return [{"kind": kind, "name": name} for kind, name in pairs]

        return {
            "left_behind": named(self.left),
            "in_use": named(self.in_use),
            "removed": named(self.removed),
            "kept": [{"kind": kind, "name": name, "size": size} for kind, name, size in self.kept],
            "build_cache": self.build_cache,
            "engine_answered": self.engine,
        }

    def lines(self) -> list[str]:
        found = [f"removed      {kind} {name}" for kind, name in self.removed]
        found += [f"LEFT BEHIND  {kind} {name}" for kind, name in self.left]
        found += [f"in use       {kind} {name} (by a session that is running)" for kind, name in self.in_use]
        found += [f"kept         {kind} {name} {size}" for kind, name, size in self.kept]
        if self.build_cache:
            found.append(f"kept         build cache {self.build_cache} (all of this engine's)")
        if not self.engine:
            found.append(
                "the Docker engine does not answer, so what it holds could not be looked at; start it and run this again"
            )
        elif not self.left:
            found.append("nothing is left behind")
        return found


def survey() -> Survey:
    """Looks, and removes nothing. Objects of other clones count too: a clone that was deleted can't clean up itself."""
    found = Survey(engine=reaper.engine_answers())
    seen: set[tuple[str, str]] = set()
    for row in ledger.rows(lifetime="run"):
        if row.session.alive:
            found.in_use.append((row.kind, row.name))
        elif _there(row):
            found.left.append((row.kind, row.name))
        elif found.engine:
            ledger.strike(row.kind, row.name)  # written down, never made
        seen.add((row.kind, row.name))
    for kind, name in reaper.labelled(lifetime="run"):
        if (kind, name) not in seen and not reaper.of_living_session(kind, name):
            found.left.append((kind, name))
    kept = {(row.kind, row.name): row for row in _kept()}  # checkouts that share an image have a row each
    found.kept = [(*pair, _size(row)) for pair, row in kept.items() if _there(row)]
    found.build_cache = _build_cache()
    return found


def clean(*, everything: bool = False, build_cache: bool = False) -> Survey:
    """Removes what ended sessions left.

    Args:
        everything: also what is kept on purpose: base images, the course's image, trained weights.
        build_cache: also BuildKit's cache, which is the whole engine's: other projects build slower once, too.
    """
    before = survey()
    for session in {row.session for row in ledger.rows(lifetime="run") if not row.session.alive}:
        reaper.clean_up_after(session)
    nobody = Session(0, "")
    reaper.remove_all(Row(kind, name, "run", "", nobody) for kind, name in before.left)
    removed = list(before.left)
    if everything:
        kept = [row for row in _kept() if row.checkout == str(CHECKOUT) or not Path(row.checkout).exists()]
        removed += [(row.kind, row.name) for row in kept]
        reaper.remove_all(kept)
    if build_cache and before.engine:
        shell.run(["docker", "builder", "prune", "--all", "--force"], timeout=300)
    after = survey()
    gone = {(kind, name) for kind, name in after.left} | {(kind, name) for kind, name, _ in after.kept}
    after.removed = [pair for pair in removed if pair not in gone]
    return after


def _kept() -> list[Row]:
    """What is kept on purpose: by the ledger, and by the labels of images whose row was lost with an earlier ledger."""
    rows = ledger.rows(lifetime="kept")
    known = {row.name for row in rows}
    nobody = Session(0, "")
    labelled = reaper.labelled(lifetime="kept", checkout=settings().checkout_id)
    return rows + [
        Row("image", name, "kept", str(CHECKOUT), nobody)
        for kind, name in labelled
        if kind == "image" and name not in known
    ]


def _there(row: Row) -> bool:
    try:
        return reaper.exists(row.kind, row.name)
    except CourseError:
        return True  # nobody can tell while the engine does not answer: better listed than forgotten


def _size(row: Row) -> str:
    if row.kind != "image":
        return ""
    asked = shell.run(["docker", "image", "inspect", "--format={{.Size}}", row.name], show=False, check=False)
    return f"({int(asked.output) / 1e6:,.0f} MB)" if asked.output.isdigit() else ""


def _build_cache() -> str:
    if not reaper.engine_answers():
        return ""
    command = ["docker", "system", "df", "--format={{.Type}}\t{{.Size}}"]
    try:
        lines = shell.run(command, show=False, check=False, timeout=60).stdout.splitlines()
    except CourseError:  # a large disk is slow to count, and this is only told by the way
        return ""
    return next((line.partition("\t")[2] for line in lines if line.startswith("Build Cache")), "")
