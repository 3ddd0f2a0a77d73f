"""The lock: hashed, for both processors, from nowhere in particular, and no older than pyproject.toml; what is installed fits together."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOCK = (ROOT / "requirements.txt").read_text(encoding="utf-8")


def entries() -> dict[str, str]:
    """Name to the whole entry, with its hashes."""
    blocks = re.split(r"^(?=[a-z0-9])", LOCK, flags=re.MULTILINE)
    return {block.split("==")[0]: block for block in blocks if "==" in block}


def test_every_entry_is_pinned_and_hashed() -> None:
    assert len(entries()) > 20
    for name, block in entries().items():
        assert re.match(rf"{re.escape(name)}==\S+", block)
        assert block.count("--hash=sha256:") >= 1, name


def test_no_address_and_no_path() -> None:
    assert "://" not in LOCK
    assert "--index" not in LOCK
    assert "--find-links" not in LOCK
    assert "/tmp" not in LOCK


def test_it_holds_what_the_package_asks_for() -> None:
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    names = {re.split(r"[<>=!~;\[ ]", line)[0] for line in wanted}
    assert names <= set(entries())
    # What was left out on purpose, and would come back by somebody's extra.
    assert not {"torch", "sympy", "websockets", "watchfiles"} & set(entries())


def test_compiled_wheels_for_both_processors() -> None:
    """A package with compiled parts has many wheels; one hash alone would mean that the other processor was forgotten."""
    for name in ("numpy", "onnxruntime", "uvloop", "httptools", "tokenizers", "pydantic-core"):
        assert entries()[name].count("--hash") >= 4, name


def test_pip_check() -> None:
    checked = subprocess.run([sys.executable, "-m", "pip", "check"], capture_output=True, text=True, timeout=120)
    assert checked.returncode == 0, checked.stdout + checked.stderr
