"""work/ belongs to the learner."""

from __future__ import annotations

from pathlib import Path

import pytest

from course_lib import settings as settings_module
from course_lib.lab import catalog, workspace


@pytest.fixture
def work(fresh_state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    originals = tmp_path / "labs"
    for lab in catalog.every().values():
        (originals / lab.notebook).parent.mkdir(parents=True, exist_ok=True)
        (originals / lab.notebook).write_text("{}")
    monkeypatch.setattr(workspace, "LABS", originals)
    monkeypatch.setenv("COURSE_WORK_DIR", str(tmp_path / "work"))
    settings_module.settings.cache_clear()
    return tmp_path / "work"


def test_a_notebook_is_copied_once_and_never_overwritten(work: Path) -> None:
    assert all("yours" in said for said in workspace.prepare())
    mine = work / catalog.lab("4.4.1").notebook
    mine.write_text("my own")
    assert workspace.prepare() == []
    assert mine.read_text() == "my own"


def test_a_newer_original_is_announced_and_not_merged(work: Path) -> None:
    workspace.prepare()
    (workspace.LABS / catalog.lab("4.4.1").notebook).write_text("{ }")
    (said,) = workspace.prepare()
    assert "newer" in said and "left as it is" in said
    assert (work / catalog.lab("4.4.1").notebook).read_text() == "{}"
