"""Records of runs: old ones of headless runs go, with their pictures; what a learner did stays."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from course_lib.lab import store
from course_lib.settings import settings


def _record(run: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    with monkeypatch.context() as patched:
        patched.setattr(store, "run_id", lambda: run)
        store.save_step("4.4.1.1", "passed", 1.0)
        store.save_evidence("4.4.1.1", store.Evidence("image.built", "docker", "x:1", {}, time.time()))
        store.save_exercise("4.4.1/layer-order", "passed", "")
        picture = settings().state_dir / "figures" / run / "layers.png"
        picture.parent.mkdir(parents=True)
        picture.write_bytes(b"")
        store.save_figure("4.4.1", "layers", "layers", str(picture))
    return picture


def test_old_records_go_and_a_learners_progress_stays(fresh_state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = [_record(run, monkeypatch) for run in ("20200101-000000-1", "notebook-7")]
    between = time.time()
    new = _record("20300101-000000-1", monkeypatch)
    store.forget(between)
    assert not any(picture.parent.exists() for picture in old) and new.exists()
    assert store.steps("20200101-000000-1") == {} and store.evidence("20200101-000000-1", "4.4.1.1") == []
    assert store.steps("20300101-000000-1") and store.figures("20300101-000000-1", "4.4.1")
    assert store.exercises("notebook-7") and store.best_so_far()[1] == {"4.4.1/layer-order": "passed"}
