"""Settings come from the environment, then course.toml, and a wrong one is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from course_lib import settings as module
from course_lib.errors import CourseError


@pytest.mark.parametrize(("name", "value"), [("PROFILE", "tpu"), ("IMAGES", "hub"), ("TARGET", "mars")])
def test_a_value_that_cannot_be_chosen_is_named(
    fresh_state: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    module.settings.cache_clear()
    with pytest.raises(CourseError) as refused:
        module.settings()
    assert f"{name}='{value}'" in str(refused.value)


def test_names_differ_between_checkouts(fresh_state: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    here = module.settings().object_name("registry")
    monkeypatch.setattr(module, "CHECKOUT", tmp_path)
    assert module.settings().object_name("registry") != here
