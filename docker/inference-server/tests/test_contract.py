"""The server against its own OpenAPI document, by schemathesis: every check, no 5xx."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Server

pytest.importorskip("schemathesis")
HERE = Path(__file__).parent


def test_the_server_does_what_its_document_says(server: Server, tmp_path: Path) -> None:
    command = [
        str(Path(sys.executable).with_name("schemathesis")),
        "--config-file",
        str(HERE / "schemathesis.toml"),
        "run",
    ]
    command += [f"{server.url}/openapi.json", "--max-examples", "20", "--seed", "441", "--generation-database", "none"]
    paths = {"SCHEMATHESIS_HOOKS": "schemathesis_hooks", "PYTHONPATH": str(HERE), "PATH": os.environ["PATH"]}
    ended = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, **paths}, capture_output=True, text=True, timeout=120
    )
    assert ended.returncode == 0, ended.stdout[-6000:] + ended.stderr[-2000:]
    asked = re.search(r"(\d+) generated, \1 passed", ended.stdout)
    assert asked and int(asked[1]) > 500, ended.stdout[-2000:]
    assert server.client.get("/health").status_code == 200
