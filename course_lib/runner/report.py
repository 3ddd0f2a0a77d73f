"""The report of a run: one set of facts, written for people (HTML), for CI (JUnit) and for programs (JSON with a schema)."""

from __future__ import annotations

import json
import platform
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata, resources
from pathlib import Path
from typing import Any

import jinja2
import jsonschema
import psutil
from junitparser import Error, Failure, JUnitXml, Skipped, TestCase, TestSuite

from course_lib import lab as lab_room
from course_lib import shell
from course_lib.errors import CourseError
from course_lib.host import engine
from course_lib.lab.catalog import Lab
from course_lib.lab.exercise import Exercise
from course_lib.lab.store import Evidence, ExerciseStatus, StepStatus
from course_lib.ledger import Row
from course_lib.settings import CHECKOUT, settings

KEEP = 10
"""How many reports stay in reports/."""


@dataclass
class LabResult:
    """What became of one lab; a lab that was not reached has every step `not_run`."""

    lab: Lab
    status: str = "skipped"
    kind: str = ""
    seconds: float = 0.0
    overhead: float = 0.0
    problems: list[str] = field(default_factory=list)
    steps: list[dict[str, Any]] = field(default_factory=list)
    exercises: list[dict[str, Any]] = field(default_factory=list)
    deliverables: list[dict[str, Any]] = field(default_factory=list)
    figures: list[tuple[str, str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.steps_from({}, lambda _: [])

    def begin(self, kind: str) -> None:
        self.kind, self.status = kind, "failed"  # until its end says otherwise
        self.problems = ["the run ended before the lab did"]

    def end(self, seconds: float, problems: list[str], overhead: float) -> None:
        self.problems = problems + [
            f"step {s['id']} is {s['status']}: {s['why']}" for s in self.steps if s["status"] != "passed"
        ]
        self.status = "failed" if self.problems else "passed"
        self.seconds, self.overhead = seconds, overhead

    def steps_from(
        self, done: Mapping[str, tuple[StepStatus, float, str]], evidence: Callable[[str], list[Evidence]]
    ) -> None:
        self.steps = []
        for step in self.lab.steps:
            status, seconds, why = done.get(step.id, ("not_run", 0.0, "the run did not reach it"))
            if status == "running":
                status, why = "failed", "the run ended in the middle of it"
            read = [
                {"fact": e.fact, "backend": e.backend, "object": e.object, "read": e.read, "at": _iso(e.at)}
                for e in evidence(step.id)
            ]
            self.steps.append(
                {
                    "id": step.id,
                    "title": step.title,
                    "status": status,
                    "seconds": round(seconds, 2),
                    "evidence": read,
                    "why": why,
                }
            )

    def exercises_from(
        self, done: Mapping[str, tuple[ExerciseStatus, str, dict[str, Any] | None]], known: Sequence[Exercise]
    ) -> None:
        self.exercises, self.deliverables = [], []
        for one in known:
            status, said, deliverable = done.get(one.id, ("not_attempted", "its check did not run", None))
            self.exercises.append({"id": one.id, "title": one.title, "status": status, "said": said})
            if deliverable:
                self.deliverables.append({"id": one.id, "status": status, **deliverable})


@dataclass
class Report:
    """A run."""

    run_id: str
    started: float
    labs: list[LabResult]
    host: dict[str, Any]
    revision: str
    finished: float = 0.0
    before_first_cell_s: float | None = None
    left_behind: list[Row] = field(default_factory=list)
    problem: str = ""

    @classmethod
    def begin(cls, run_id: str, labs: Sequence[Lab]) -> Report:
        return cls(run_id, psutil.Process().create_time(), [LabResult(lab) for lab in labs], host(), revision())

    def lab(self, lab_id: str) -> LabResult:
        return next(result for result in self.labs if result.lab.id == lab_id)

    def first_cell(self, begun: float, at: float) -> None:
        """Notes when the run's first cell started, counted from the start of this process."""
        if self.before_first_cell_s is None and at:
            self.before_first_cell_s = round(at - min(begun, self.started), 2)

    def finish(self) -> None:
        self.finished = time.time()

    @property
    def exit_status(self) -> int:
        """0: nothing failed; 1: something did; 2: a requested lab was not run."""
        if any(result.status == "failed" for result in self.labs) or self.left_behind:
            return 1
        return 2 if self.problem or any(result.status == "skipped" for result in self.labs) else 0

    def as_json(self) -> dict[str, Any]:
        return {
            "schema": 1,
            "started": _iso(self.started),
            "finished": _iso(self.finished),
            "revision": self.revision,
            "host": self.host,
            "profile": settings().profile,
            "images": settings().images,
            "target": settings().target,
            "before_first_cell_s": self.before_first_cell_s,
            "problem": self.problem,
            "labs": [
                {
                    "id": r.lab.id, "title": r.lab.title, "kind": r.kind, "status": r.status, "seconds": round(r.seconds, 1),
                    "runner_overhead": round(r.overhead, 4), "problems": r.problems, "steps": r.steps, "exercises": r.exercises,
                    "deliverables": r.deliverables,
                }
                for r in self.labs
            ],
            "left_behind": [{"backend": "docker", "kind": row.kind, "name": row.name} for row in self.left_behind],
        }  # fmt: skip


def _iso(at: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))


def host() -> dict[str, Any]:
    """What the run ran on; no host name, no user, no address."""
    found = engine.probe()
    return {
        "system": f"{platform.system()} {platform.release()}",
        "machine": platform.machine(),
        "python": platform.python_version(),
        "docker": found.version or found.state.value,
        "storage": found.storage,
        "cpus": psutil.cpu_count() or 0,
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "packages": {name: metadata.version(name) for name in ("papermill", "nbclient", "jupyterlab", "docker")},
    }


def revision() -> str:
    """The checkout's git revision; empty outside a clone."""
    try:
        return shell.run(
            ["git", "-C", str(CHECKOUT), "describe", "--always", "--dirty", "--abbrev=12"], show=False
        ).output
    except CourseError:
        return ""


def schema() -> dict[str, Any]:
    """The JSON Schema that report.json follows."""
    return dict(json.loads(resources.files("course_lib.runner").joinpath("report.schema.json").read_text()))


def write(found: Report, folder: Path) -> None:
    """Writes all three faces into a folder, points reports/latest at it, and drops the oldest ones."""
    data = found.as_json()
    jsonschema.validate(data, schema())
    (folder / "report.json").write_text(json.dumps(data, indent=2) + "\n")
    _junit(found).write(str(folder / "junit.xml"), pretty=True)
    (folder / "index.html").write_text(_html(found, data, folder))
    latest = folder.parent / "latest"
    latest.unlink(missing_ok=True)
    latest.symlink_to(folder.name)
    for old in sorted(p for p in folder.parent.iterdir() if p.is_dir() and not p.is_symlink())[:-KEEP]:
        shutil.rmtree(old)


def _junit(found: Report) -> JUnitXml:
    xml = JUnitXml("course")
    for result in found.labs:
        suite = TestSuite(f"lab {result.lab.id}")
        for step in result.steps:
            case = TestCase(
                f"{step['id']} {step['title']}", classname=f"lab-{result.lab.id}.steps", time=step["seconds"]
            )
            if step["status"] == "failed":
                case.result = [Failure(step["why"])]
            elif step["status"] != "passed":
                case.result = [Skipped(step["why"])]
            suite.add_testcase(case)
        if result.problems:
            case = TestCase("notebook", classname=f"lab-{result.lab.id}", time=result.seconds)
            case.result = [Error("\n".join(result.problems))]
            suite.add_testcase(case)
        xml.add_testsuite(suite)
    return xml


def _html(found: Report, data: dict[str, Any], folder: Path) -> str:
    from nbconvert import HTMLExporter

    pages = {}
    for result in found.labs:
        notebook = folder / result.lab.notebook
        if notebook.exists():
            body, _ = HTMLExporter(embed_images=True).from_filename(str(notebook))
            page = notebook.with_suffix(".html")
            page.write_text(body)
            pages[result.lab.id] = page.relative_to(folder).as_posix()
    pictures = {
        r.lab.id: [
            (caption, lab_room.png_data_uri(Path(path).read_bytes()))
            for _, caption, path in r.figures
            if Path(path).exists()
        ]
        for r in found.labs
    }
    template = jinja2.Environment(loader=jinja2.PackageLoader("course_lib.runner", "."), autoescape=True).get_template(
        "report.html.j2"
    )
    return template.render(
        report=data, pages=pages, pictures=pictures, took=found.finished - found.started, ok=found.exit_status == 0
    )
