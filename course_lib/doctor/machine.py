"""What several checks want to know about this machine, asked once."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field
from typing import Any

from course_lib import shell
from course_lib.doctor import nvidia
from course_lib.errors import CourseError
from course_lib.host import engine
from course_lib.host.engine import Engine, EngineState
from course_lib.settings import Profile, settings


@dataclass(frozen=True)
class Machine:
    """The machine, and what is wanted of it."""

    lab: str | None
    """The lab it shall be fit for; None asks for all."""
    profile: Profile
    engine: Engine
    info: dict[str, Any] = field(default_factory=dict)
    """`docker info`: the engine's own words where it answers, and the client's in any case."""
    gpus: nvidia.Gpus = field(default_factory=nvidia.Gpus)

    @property
    def wants_gpu(self) -> bool:
        return self.profile == "gpu"


def look(lab: str | None) -> Machine:
    """Asks the engine and the GPU's driver; each question has a limit of seconds."""
    found = engine.probe()
    asks = shutil.which("docker") is not None and found.state is not EngineState.HANGING
    return Machine(lab, settings().profile, found, _info() if asks else {}, nvidia.look())


def _info() -> dict[str, Any]:
    try:
        said = shell.run(["docker", "info", "--format={{json .}}"], show=False, check=False, timeout=10).stdout
    except CourseError:
        return {}
    return dict(json.loads(said)) if said.startswith("{") else {}
