"""The lock: hashed, for both processors, from nowhere in particular, and no older than pyproject.toml."""

import re
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
    assert not {"torch", "numpy", "grpcio", "chromadb", "websockets", "watchfiles"} & set(entries())


def test_compiled_wheels_for_both_processors() -> None:
    """A package with compiled parts has many wheels; one hash alone would mean that the other processor was forgotten."""
    for name in ("semantic-text-splitter", "uvloop", "httptools", "pydantic-core", "pyyaml"):
        assert entries()[name].count("--hash") >= 4, name


def test_chroma_is_the_one_package_of_the_tests() -> None:
    """Its server is inside; `chromadb` with all that its client asks for would be 370 MB."""
    lock = (ROOT / "tests" / "chroma.txt").read_text(encoding="utf-8")
    assert re.findall(r"^(\S+)==", lock, re.MULTILINE) == ["chromadb"]
    assert "://" not in lock
