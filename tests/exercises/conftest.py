"""A learner's state and work folder for the exercises' tests, and an engine that is left as it was."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from course_lib import ledger, reaper
from course_lib import settings as settings_module


@pytest.fixture(scope="module")
def learner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A work folder nobody has touched; what was made by the end of the module is removed."""
    home = tmp_path_factory.mktemp("learner")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COURSE_STATE_DIR", str(home / "state"))
        patch.setenv("COURSE_WORK_DIR", str(home / "work"))
        patch.setenv("COURSE_RUN_ID", "test-exercises")
        patch.delenv("COURSE_STRICT", raising=False)
        settings_module.settings.cache_clear()
        yield home / "work"
        left = reaper.remove_all(reaper.left_by(ledger.Session.current()))
    settings_module.settings.cache_clear()
    assert not left
