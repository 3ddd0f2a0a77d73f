"""`course bench soak`: a short run stays flat, and a leak is seen."""

from __future__ import annotations

import re
from pathlib import Path

from course_lib.bench import document, soak, workload

#: Python runs this before the server: every request that is logged leaves 200 KB behind, and an error in the log.
LEAK = """
import logging

from inference_server.middleware import RequestContext

kept, record = [], RequestContext._record

def leak(self, *arguments):
    logging.getLogger("inference_server").error("leaking")
    kept.append(b"x" * 200_000)
    record(self, *arguments)

RequestContext._record = leak
"""


#: What a run this short may grow, whose warm-up is short, too; the leak below grows ten times as much.
SLACK_MB = 25
#: A cache that fills takes longer than these runs.
NO_CACHE = {"PREFIX_CACHE_MB": "0"}


def test_memory_is_flat_in_a_short_run(tmp_path: Path) -> None:
    for seconds in (12, 40, 120):  # until each way was gone and there was time for the reloads
        found = soak.figures(seconds, reload_every=8, environment=NO_CACHE)
        grown = found["rss_end_mb"] - found["rss_start_mb"]  # for a moment a reload holds two models
        if found["reloads"] >= 4 and found["requests_by_kind"].keys() == soak.WAYS.keys() and grown < SLACK_MB:
            break
    assert found["rss_end_mb"] < found["rss_start_mb"] + SLACK_MB, found
    assert (found["failed"], found["failures"], found["errors_logged"]) == (0, [], 0)
    assert found["requests_by_kind"].keys() == soak.WAYS.keys()
    assert found["reloads"] >= 4
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- course bench soak: begin -->\nreplaced\n<!-- course bench soak: end -->\nafter\n")
    document.write("soak", soak.markdown(found), page)
    text = page.read_text()
    assert re.match(r"before\n<!-- course bench soak: begin -->\n`make bench", text) and text.endswith("-->\nafter\n")
    assert f"| at the end | {found['rss_end_mb']:.0f} |" in text and "replaced" not in text


def test_a_leak_is_seen(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(LEAK)
    for seconds in (6, 20, 60):  # until enough requests have leaked
        found = soak.figures(seconds, environment={**NO_CACHE, "PYTHONPATH": f"{tmp_path}:{workload.SERVER}"})
        if found["requests"] >= 300 and found["rss_end_mb"] > found["rss_start_mb"] + SLACK_MB:
            break
    assert found["failed"] == 0, found["failures"]
    assert found["errors_logged"] > found["requests"] / 2  # who hangs up early is not logged
    assert not found["flat"]
    assert found["rss_end_mb"] > found["rss_start_mb"] + SLACK_MB
