"""Settings: what README.md says is what the code reads, and a wrong value is refused in a sentence."""

import pytest
from conftest import ROOT, free_port, run
from rag_service.errors import StartError
from rag_service.settings import Settings, read_settings


def test_the_readme_has_the_table_of_the_code() -> None:
    printed = run("settings")
    assert (printed.returncode, printed.stderr) == (0, "")
    assert printed.stdout in (ROOT / "README.md").read_text(encoding="utf-8")
    rows = [line.split("`")[1] for line in printed.stdout.splitlines() if line.startswith("| `")]
    assert rows == [name.upper() for name in Settings.model_fields]
    assert "| `PORT` | `8000` | whole number, from 1 to 65535 | " in printed.stdout


def test_defaults() -> None:
    assert read_settings({}) == Settings.model_validate({})
    assert read_settings({"PORT": "", "CACHE_URL": " "}) == Settings.model_validate({})


def test_values_are_converted() -> None:
    given = read_settings({"PORT": "9000", "TIMEOUT_SECONDS": "2.5", "CACHE_URL": "redis://cache:6379/0"})
    assert (given.port, given.timeout_seconds, given.cache_url) == (9000, 2.5, "redis://cache:6379/0")


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("PORT", "http", "PORT=http can't be used: input should be a valid integer"),
        ("PORT", "70000", "PORT=70000 can't be used: input should be less than or equal to 65535."),
        ("TIMEOUT_SECONDS", "0", "TIMEOUT_SECONDS=0 can't be used: input should be greater than or equal to 0.1."),
        ("TIMEOUT_SECONDS", "nan", "TIMEOUT_SECONDS=nan can't be used: "),
        ("ANSWER_MODE", "chatty", "ANSWER_MODE=chatty can't be used: input should be 'extractive' or 'generative'."),
        ("HNSW_SPACE", "manhattan", "HNSW_SPACE=manhattan can't be used: input should be 'cosine', 'l2' or 'ip'."),
        ("COLLECTION", "a b", "COLLECTION=a b can't be used: "),
        ("CHROMA_URL", "chroma:8000", "CHROMA_URL is no plain address: write one such as http://host:8000"),
        ("INFERENCE_URL", "http://user:hunter2@proxy/v1", "INFERENCE_URL is no plain address"),
        ("CACHE_URL", "http://cache", "CACHE_URL is no plain address: write one such as redis://cache:6379/0"),
        ("CACHE_URL", "redis://:hunter2@cache", "CACHE_URL is no plain address"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector", "OTEL_EXPORTER_OTLP_ENDPOINT is no plain address"),
        ("CHUNK_OVERLAP", "200", "CHUNK_OVERLAP=200 is more than half of CHUNK_CHARACTERS=300: lower it."),
    ],
)
def test_wrong_values(name: str, value: str, said: str) -> None:
    with pytest.raises(StartError) as refused:
        read_settings({name: value})
    assert str(refused.value).startswith(said)
    assert "hunter2" not in str(refused.value)


def test_a_wrong_setting_ends_the_start_with_a_sentence() -> None:
    done = run(PORT="http")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("rag-service: PORT=http")
    assert done.stderr.count("\n") == 1


def test_a_port_that_is_taken() -> None:
    import socket

    with socket.create_server(("127.0.0.1", free_port())) as taken:
        done = run(HOST="127.0.0.1", PORT=taken.getsockname()[1])
    assert done.returncode == 1
    assert "set PORT to a free port" in done.stderr
