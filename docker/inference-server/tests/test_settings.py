"""Settings: what SETTINGS.md says is what the code reads, and a wrong value is refused in a sentence."""

from dataclasses import fields
from pathlib import Path

import pytest
from conftest import run
from inference_server.errors import StartError
from inference_server.settings import Settings, _quota, read_settings, usable_cpus

ROOT = Path(__file__).resolve().parents[1]


def test_the_page_is_what_the_code_says() -> None:
    printed = run("settings")
    assert (printed.returncode, printed.stderr) == (0, "")
    assert (ROOT / "SETTINGS.md").read_text(encoding="utf-8") == printed.stdout
    rows = {line.split("`")[1]: line for line in printed.stdout.splitlines() if line.startswith("| `")}
    assert list(rows) == [item.name.upper() for item in fields(Settings)]
    assert rows["PORT"].startswith("| `PORT` | `8080` | whole number, from 1 to 65535 | ")
    assert all(cell.strip() for row in rows.values() for cell in row.split("|")[1:-1])


def test_defaults() -> None:
    assert read_settings({}) == Settings()
    assert read_settings({"PORT": "", "ENGINE": " "}) == Settings()


def test_values_are_converted() -> None:
    given = read_settings({"PORT": "9000", "DRAIN_SECONDS": "2.5", "ENGINE": "ONNX", "MODEL_PATH": "/Some/Path"})
    assert (given.port, given.drain_seconds, given.engine, given.model_path) == (9000, 2.5, "onnx", "/Some/Path")


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("PORT", "http", "PORT=http is not a whole number."),
        ("PORT", "70000", "PORT=70000 is out of range: it has to be from 1 to 65535."),
        ("PORT", "80.5", "PORT=80.5 is not a whole number."),
        ("MAX_BATCH", "0", "MAX_BATCH=0 is out of range: it has to be at least 1."),
        ("STALL_SECONDS", "soon", "STALL_SECONDS=soon is not a number."),
        ("DRAIN_SECONDS", "nan", "DRAIN_SECONDS=nan is out of range: it has to be at least 0."),
        ("ENGINE", "tensorrt", "ENGINE=tensorrt is not known: use one of auto, onnx, transformers."),
        ("DEFAULT_NEW_TOKENS", "9999", "DEFAULT_NEW_TOKENS=9999 is more than MAX_NEW_TOKENS=512: lower the first."),
    ],
)
def test_wrong_values(name: str, value: str, said: str) -> None:
    with pytest.raises(StartError) as refused:
        read_settings({name: value})
    assert str(refused.value) == said


def test_cpu_quota_of_a_container(tmp_path: Path) -> None:
    assert usable_cpus() >= 1
    assert _quota(tmp_path) is None
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    assert _quota(tmp_path) == 1.5
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert _quota(tmp_path) is None
    (tmp_path / "cpu.max").unlink()
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu/cpu.cfs_quota_us").write_text("50000\n")
    (tmp_path / "cpu/cpu.cfs_period_us").write_text("100000\n")
    assert _quota(tmp_path) == 0.5
