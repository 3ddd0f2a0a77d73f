"""JupyterLab on work/: on loopback only, and without its own calls to the network."""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Mapping
from pathlib import Path

from course_lib.errors import CourseError
from course_lib.settings import CHECKOUT, settings

#: JupyterLab asks at its first start whether it may fetch news, and looks for updates; a course needs neither.
_QUIET = {"@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False}}


def free_port(wanted: int) -> int:
    """The first port of loopback from a wanted one on that nobody listens on: known before it is printed.

    Raises:
        CourseError: none of fifty is free.
    """
    for port in range(wanted, min(wanted + 50, 65536)):
        with socket.socket() as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as Jupyter's own server does
            try:
                tried.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise CourseError(f"no port from {wanted} on can be had", do="Give another one: course lab --port 9000.")


def command(port: int, *, browser: bool) -> list[str]:
    """The command that starts JupyterLab; writes the settings it starts with into this environment."""
    overrides = Path(sys.prefix) / "share" / "jupyter" / "lab" / "settings" / "overrides.json"
    overrides.parent.mkdir(parents=True, exist_ok=True)
    overrides.write_text(json.dumps(_QUIET))
    work = settings().work_dir
    # The whole checkout is the root, so that its terminals start where the shown commands can be pasted.
    root = CHECKOUT if work.is_relative_to(CHECKOUT) else work
    found = [sys.executable, "-m", "jupyterlab", f"--ServerApp.root_dir={root}"]
    found += [f"--LabApp.default_url=/lab/tree/{work.relative_to(root)}"]
    found += ["--ServerApp.ip=127.0.0.1", f"--ServerApp.port={port}", "--ServerApp.port_retries=0"]
    found += [] if browser else ["--no-browser"]
    return found + (["--allow-root"] if os.geteuid() == 0 else [])


def tunnel(port: int, environment: Mapping[str, str]) -> str:
    """The command that brings this JupyterLab to the machine one came from by SSH; empty for who sits here."""
    connection = environment.get("SSH_CONNECTION", "").split()
    if len(connection) < 3:
        return ""
    return f"ssh -N -L {port}:127.0.0.1:{port} {environment.get('USER', 'you')}@{connection[2]}"
