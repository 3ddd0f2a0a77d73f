"""The whole lab 4.4.5 as `make labs LAB=4.4.5` runs it, from images that are there to a cluster that is gone."""

from __future__ import annotations

import json
import sys
from typing import Any

from course_lib import shell
from course_lib.bench.cluster_traces import Say, Traces
from course_lib.errors import CourseError
from course_lib.settings import CHECKOUT

LAB = "4.4.5"
#: A run that takes longer is ended.
LIMIT_S = 1800.0


def figures(traces: Traces, say: Say) -> dict[str, Any]:
    """Runs it once.

    Returns:
        seconds of the notebook, its status, and how many of its steps passed. What its report has as left behind is noted.

    Raises:
        CourseError: the run wrote no report.
    """
    say(f"lab {LAB}, from top to bottom")
    report = CHECKOUT / "reports" / "latest" / "report.json"
    before = report.stat().st_mtime_ns if report.exists() else 0
    done = shell.run(
        [sys.executable, "-m", "course_lib.cli", "run", LAB], show=False, check=False, timeout=LIMIT_S, cwd=CHECKOUT
    )
    if not report.exists() or report.stat().st_mtime_ns == before:
        raise CourseError(
            f"the run of lab {LAB} wrote no report",
            why=done.output[-2000:],
            do=f"Run `course run {LAB}` by itself, and mend what it says.",
        )
    found = json.loads(report.read_text())
    lab = found["labs"][0]
    traces.left += [f"{row['kind']} {row['name']}" for row in found["left_behind"]]
    return {
        "seconds": round(float(lab["seconds"]), 1),
        "status": lab["status"],
        "steps_passed": sum(step["status"] == "passed" for step in lab["steps"]),
    }
