"""The server against its own OpenAPI document, by schemathesis: every check, keys too, no 5xx."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Server

pytest.importorskip("schemathesis")
HERE = Path(__file__).parent


@pytest.mark.timeout(700)
def test_the_server_does_what_its_document_says(tmp_path: Path) -> None:
    command = [str(Path(sys.executable).with_name("schemathesis")), "--config-file", str(HERE / "schemathesis.toml")]
    options = ["--max-examples", "20", "--seed", "441", "--generation-database", "none"]
    options += ["--header", "Authorization: Bearer correct-horse"]
    paths = {"SCHEMATHESIS_HOOKS": "schemathesis_hooks", "PYTHONPATH": str(HERE), "PATH": os.environ["PATH"]}
    with Server(API_KEYS="correct-horse") as server:
        ended = subprocess.run(
            [*command, "run", f"{server.url}/openapi.json", *options],
            cwd=tmp_path,
            env={**os.environ, **paths},
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert server.client.get("/health").status_code == 200
        assert "Traceback" not in server.output()
    assert ended.returncode == 0, ended.stdout[-6000:] + ended.stderr[-2000:]
    asked = re.search(r"(\d+) generated, \1 passed", ended.stdout)
    assert asked and int(asked[1]) > 1000, ended.stdout[-2000:]
