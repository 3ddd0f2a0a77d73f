"""`course bench image`: how much smaller, and how much quicker to rebuild, the optimised image is than the naive one."""

from __future__ import annotations

import shutil
import statistics
import tempfile
import time
from pathlib import Path

from course_lib import ledger, shell
from course_lib.images import bases, buildkit, course_image, inspection

_RUNS = 5
_MB = 1_000_000


def figures() -> dict[str, object]:
    """Sizes in MB (uncompressed), times in seconds (median of five)."""
    optimised = course_image.build_inference_image().reference
    naive = course_image.build_naive_image().reference
    found = bases.ensure_for_profile()
    below = inspection.size(found.os or found.runtime)
    size, before = inspection.size(optimised), inspection.size(naive)
    return {
        "profile": "gpu" if found.runtime == found.builder else "cpu",
        "bases": found.source,
        "naive_mb": round(before / _MB, 1),
        "optimised_mb": round(size / _MB, 1),
        "optimised_share_of_naive": round(size / before, 3),
        "base_mb": round(below / _MB, 1),
        "base_is": "the system below Python" if found.os else "the Python base",
        "added_over_base_mb": round((size - below) / _MB, 1),
        "second_build_of_the_same_tree_s": _median(course_image.build_inference_image),
        "rebuild_after_a_code_change_s": _code_changes(found),
    }


def _median(what: object) -> float:
    times = []
    for _ in range(_RUNS):
        started = time.monotonic()
        what()  # type: ignore[operator]
        times.append(time.monotonic() - started)
    return round(statistics.median(times), 2)


def _code_changes(found: bases.Bases) -> float:
    """Changes a line of code in a copy of the context and builds it, five times."""
    times = []
    with tempfile.TemporaryDirectory(prefix="course-bench-") as held:
        context = Path(held, "context")
        shutil.copytree(course_image.SERVER, context, ignore=shutil.ignore_patterns("training", "tests", "__pycache__"))
        for number in range(_RUNS):
            changed = context / "inference_server" / "__init__.py"
            changed.write_text(changed.read_text() + f"\n# change {number} at {time.time()}\n")
            tag = f"{course_image.name()}:bench"
            built = buildkit.build(context, tag=tag, args=course_image.build_arguments(found))
            times.append(built.seconds)
        shell.run(["docker", "image", "rm", "--force", tag], show=False)
        ledger.strike("image", tag)
    return round(statistics.median(times), 2)
