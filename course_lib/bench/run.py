"""`course bench run`: what the runner itself costs."""

from __future__ import annotations

import json
import subprocess
import sys

from course_lib.errors import CourseError
from course_lib.settings import CHECKOUT


def figures(lab: str) -> dict[str, object]:
    """Runs a lab in a process of its own and reads the report.

    Raises:
        CourseError: the lab did not pass; its times would say nothing.
    """
    ended = subprocess.run([sys.executable, "-m", "course_lib.cli", "run", lab], check=False, stdout=subprocess.DEVNULL)
    report = json.loads((CHECKOUT / "reports" / "latest" / "report.json").read_text())
    if ended.returncode != 0:
        raise CourseError(f"lab {lab} did not pass", do="Read reports/latest/index.html.")
    ran = report["labs"][0]
    return {
        "lab": lab,
        "seconds": ran["seconds"],
        "before_first_cell_s": report["before_first_cell_s"],
        "share_outside_cells": ran["runner_overhead"],
    }
