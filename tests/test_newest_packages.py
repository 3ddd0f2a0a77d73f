"""The search for the packages that break the tests: the fewest, in few trials."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests import newest_packages

NAMES = [f"package-{number}" for number in range(100)]


@pytest.mark.parametrize("guilty", [{"package-0"}, {"package-99"}, {"package-17", "package-60"}, set(NAMES[:3])])
def test_the_fewest_are_found(guilty: set[str]) -> None:
    trials: list[Sequence[str]] = []

    def breaks(upgraded: Sequence[str]) -> bool:
        trials.append(upgraded)
        return guilty <= set(upgraded)

    assert set(newest_packages.fewest(NAMES, breaks)) == guilty
    assert len(trials) <= 8 * len(guilty)


def test_a_set_that_can_not_be_resolved_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(newest_packages, "uv", lambda: "false")
    with pytest.raises(newest_packages.CanNotBeHad, match="pluggy in its newest version can't be resolved"):
        newest_packages.resolve("pluggy")
