"""JupyterLab on work/: on loopback only, and without its own calls to the network."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from course_lib.settings import settings

#: JupyterLab asks at its first start whether it may fetch news, and looks for updates; a course needs neither.
_QUIET = {"@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False}}


def command(port: int, *, browser: bool) -> list[str]:
    """The command that starts JupyterLab; writes the settings it starts with into this environment."""
    overrides = Path(sys.prefix) / "share" / "jupyter" / "lab" / "settings" / "overrides.json"
    overrides.parent.mkdir(parents=True, exist_ok=True)
    overrides.write_text(json.dumps(_QUIET))
    found = [sys.executable, "-m", "jupyterlab", f"--ServerApp.root_dir={settings().work_dir}"]
    found += ["--ServerApp.ip=127.0.0.1", f"--ServerApp.port={port}"]
    found += [] if browser else ["--no-browser"]
    return found + (["--allow-root"] if os.geteuid() == 0 else [])


def tunnel(port: int, environment: Mapping[str, str]) -> str:
    """The command that brings this JupyterLab to the machine one came from by SSH; empty for who sits here."""
    connection = environment.get("SSH_CONNECTION", "").split()
    if len(connection) < 3:
        return ""
    return f"ssh -N -L {port}:127.0.0.1:{port} {environment.get('USER', 'you')}@{connection[2]}"
