"""Settings: what SETTINGS.md says is what the code reads, and a wrong value is refused in a sentence."""

from dataclasses import fields
from pathlib import Path

import pytest
from conftest import run
from inference_server.errors import StartError
from inference_server.settings import Settings, _quota, bundled_models, read_settings, usable_cpus

ROOT = Path(__file__).resolve().parents[1]
NOTHING_SET = {"model_path": "the models beside the package"}


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


def test_which_port_counts() -> None:
    """Vertex AI asks at AIP_HTTP_PORT whatever else is set; Cloud Run and everybody else say PORT."""
    assert read_settings({"PORT": "9000"}).port == 9000
    assert read_settings({"PORT": "9000", "AIP_HTTP_PORT": "9001"}).port == 9001
    assert read_settings({"PORT": "9000", "AIP_HTTP_PORT": "0"}).port == 9000
    assert read_settings({"AIP_HTTP_PORT": "9001"}).port == 9001


def test_where_the_model_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MODEL_PATH, else AIP_STORAGE_URI, else what SageMaker unpacked, else the models that come along."""
    monkeypatch.setenv("SAGEMAKER_BASE_DIR", str(tmp_path))
    assert read_settings({}).models_folder() == bundled_models()
    (tmp_path / "model").mkdir()
    assert read_settings({}).models_folder() == bundled_models()
    (tmp_path / "model" / "model.onnx").touch()
    assert read_settings({}).models_folder() == tmp_path / "model"
    assert read_settings({"AIP_STORAGE_URI": f"file://{tmp_path}"}).models_folder() == tmp_path
    assert read_settings({"AIP_STORAGE_URI": str(tmp_path)}).models_folder() == tmp_path
    assert read_settings({"AIP_STORAGE_URI": "/x", "MODEL_PATH": "/y"}).models_folder() == Path("/y")
    with pytest.raises(StartError, match="is neither gs://bucket/folder nor a local folder"):
        read_settings({"AIP_STORAGE_URI": "s3://bucket/folder"}).models_folder()


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("PORT", "http", "PORT=http is not a whole number."),
        ("PORT", "70000", "PORT=70000 is out of range: it has to be from 1 to 65535."),
        ("PORT", "80.5", "PORT=80.5 is not a whole number."),
        ("GRPC_PORT", "8080", "GRPC_PORT=8080 is HTTP's port, too: choose another."),
        ("AIP_HTTP_PORT", "http", "AIP_HTTP_PORT=http is not a whole number."),
        ("AIP_PREDICT_ROUTE", "predict", "AIP_PREDICT_ROUTE=predict is not a path: write it as /v1/predict."),
        ("AIP_HEALTH_ROUTE", "/{x}", "AIP_HEALTH_ROUTE=/{x} is not a path: write it as /v1/predict."),
        ("MAX_BATCH", "0", "MAX_BATCH=0 is out of range: it has to be at least 1."),
        ("STALL_SECONDS", "soon", "STALL_SECONDS=soon is not a number."),
        ("DRAIN_SECONDS", "nan", "DRAIN_SECONDS=nan is out of range: it has to be at least 0."),
        ("ENGINE", "tensorrt", "ENGINE=tensorrt is not known: use one of auto, onnx, transformers, openai."),
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
