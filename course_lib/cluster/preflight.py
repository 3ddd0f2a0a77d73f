"""What stops a cluster before anything of it is made: an engine that does not answer, a disk that is nearly full."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from course_lib import shell
from course_lib.errors import CourseError

_GB = 1_000_000_000
#: What the engine's disk needs: each node unpacks its own system and the lab's image; and what is built or loaded on the way.
_FOR_ALL, _FOR_EACH = 1.0, 0.5


def require(nodes: int) -> None:
    """Refuses to begin where the start could not come to its end.

    Raises:
        CourseError: Docker does not answer, or its disk has too little room for so many nodes.
    """
    root = Path(_data_root())
    # Inside a virtual machine (Docker Desktop) or on another one, and not to be seen from here: then the engine says it itself.
    if not root.exists() or not os.environ.get("DOCKER_HOST", "unix://").startswith("unix://"):
        return
    free, needed = shutil.disk_usage(root).free / _GB, _FOR_ALL + _FOR_EACH * nodes
    if free < needed:
        raise CourseError(
            f"the disk is nearly full: {free:.1f} GB are free at {root}, and a cluster of {nodes} {'nodes needs' if nodes > 1 else 'node needs'} {needed:.1f}",
            why="Nodes that run out of disk throw pods out again, or don't start at all.",
            do="Free some: `docker system df` shows what holds it, `course cleanup --all` removes what the course keeps.",
        )


def _data_root() -> str:
    asked = shell.run(["docker", "info", "--format={{.DockerRootDir}}"], show=False, check=False, timeout=20)
    if not asked.output:
        raise CourseError(
            "the cluster did not start: Docker does not answer",
            why=asked.stderr.strip()[-400:],
            do="Start Docker, and run the command again; `course doctor` says more.",
        )
    return asked.output
