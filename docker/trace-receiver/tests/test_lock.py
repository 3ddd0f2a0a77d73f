"""The lock: pinned, hashed, from nowhere in particular, and no older than pyproject.toml."""

from __future__ import annotations

import re
import tomllib

from conftest import ROOT

LOCK = (ROOT / "requirements.txt").read_text(encoding="utf-8")


def test_every_entry_is_pinned_and_hashed_and_wanted() -> None:
    blocks = {
        text.split("==")[0]: text for text in re.split(r"^(?=[a-z0-9])", LOCK, flags=re.MULTILINE) if "==" in text
    }
    assert len(blocks) > 10
    assert [name for name, text in blocks.items() if "--hash=sha256:" not in text] == []
    assert not re.search(r"://|--index|--find-links", LOCK)
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    assert {re.split(r"[<>=!~;\[ ]", line)[0] for line in wanted} <= set(blocks)
