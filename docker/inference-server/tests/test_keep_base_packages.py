"""What is installed over a base with packages of its own: nothing that would break its torch, nothing too old for the server."""

import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from keep_base_packages import BaseUnfit, entries, to_install, used_by

ROOT = Path(__file__).parents[1]
LOCK = """# a comment
anyio==4.9.0 \\
    --hash=sha256:aa \\
    --hash=sha256:bb
    # via starlette
fastapi==0.120.0 \\
    --hash=sha256:cc
numpy==2.3.4 ; python_full_version >= '3.11' \\
    --hash=sha256:dd
uvloop==0.22.1 \\
    --hash=sha256:ee
"""
NEEDED = ["fastapi>=0.115", "numpy>=2.0", "uvloop>=0.21; sys_platform != 'win32'"]


def names(text: str) -> list[str]:
    return list(entries(text))


def test_an_empty_base_gets_the_whole_lock_with_its_hashes() -> None:
    said = to_install(LOCK, {}, NEEDED, {})
    assert names(said) == ["anyio", "fastapi", "numpy", "uvloop"]
    assert "--hash=sha256:bb" in said and "python_full_version" in said


def test_what_the_base_has_stays_the_bases() -> None:
    """An older numpy that the server can use is not replaced, and neither is what the server itself did not ask for."""
    said = to_install(LOCK, {"NumPy": "2.1.0", "anyio": "3.0"}, NEEDED, {"numpy": [("torch", "numpy<2.2")]})
    assert names(said) == ["fastapi", "uvloop"]


def test_what_is_too_old_for_the_server_is_installed_on_top() -> None:
    said = to_install(LOCK, {"fastapi": "0.90.0", "numpy": "2.1.0"}, NEEDED, {"fastapi": [("gradio", "fastapi>=0.80")]})
    assert names(said) == ["anyio", "fastapi", "uvloop"]


def test_a_base_that_would_break_is_refused_with_a_sentence() -> None:
    with pytest.raises(
        BaseUnfit, match=r"numpy 1\.26\.4, the server needs >=2\.0, and the base's torch can't live with 2\.3\.4"
    ):
        to_install(LOCK, {"numpy": "1.26.4"}, NEEDED, {"numpy": [("torch", "numpy<2")]})


def test_a_preview_version_of_the_base_counts() -> None:
    """NGC ships builds such as 2.9.0a0+git: they are what the base was tested with."""
    assert "numpy" not in names(to_install(LOCK, {"numpy": "2.4.0a0+git1234"}, NEEDED, {}))


def test_over_this_environment_nothing_of_it_is_replaced() -> None:
    """The script as the Dockerfile runs it, over the environment that runs the tests, which has the locked versions."""
    command = [sys.executable, "keep_base_packages.py", "requirements.txt", "pyproject.toml"]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert names(said) == []
    assert ("starlette", "anyio") in [(user, text[:5]) for user, text in used_by()["anyio"]]


def test_every_entry_of_the_lock_for_this_platform_is_read() -> None:
    lock = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    read = {name: version for name, (version, _) in entries(lock).items()}
    assert len(read) > 15
    for line in lock.splitlines():
        if line[:1].isalnum() and ";" not in line:
            assert line.partition("==")[0] in read
    # One of two, where a package is not the same for every Python.
    assert read["numpy"] == metadata.version("numpy")
    other = (
        "numpy==1.0 ; python_full_version < '3'\nnumpy==2.0 ; python_full_version >= '3'\nx==1 ; sys_platform == 'z'\n"
    )
    assert {name: version for name, (version, _) in entries(other).items()} == {"numpy": "2.0"}
