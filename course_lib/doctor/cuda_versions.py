"""Do this machine's driver and GPU fit the CUDA of the image that PROFILE=gpu builds on?"""

from __future__ import annotations

import json

from course_lib import shell
from course_lib.doctor import cuda_table
from course_lib.doctor.check import Check
from course_lib.doctor.finding import Finding, note
from course_lib.doctor.machine import Machine
from course_lib.errors import CourseError
from course_lib.settings import settings


def image_cuda(reference: str) -> cuda_table.Two | None:
    """CUDA of an image, as the image itself says it in CUDA_VERSION; None where it is not here or says nothing."""
    try:
        said = shell.run(
            ["docker", "image", "inspect", "--format={{json .Config.Env}}", reference], show=False, timeout=20
        )
    except CourseError:
        return None
    variables = dict(entry.split("=", 1) for entry in json.loads(said.output) or [] if "=" in entry)
    return cuda_table.two(variables.get("CUDA_VERSION", ""))


def examine(machine: Machine) -> list[Finding]:
    if not machine.gpus.found:
        return []  # the toolkit's check has said so
    from course_lib.images import pins

    pin = pins.load()["ngc-pytorch"]
    reference = settings().ngc_base or pin.reference
    here = image_cuda(reference if settings().ngc_base else pin.pinned) if machine.engine.usable else None
    cuda = here or cuda_table.ngc_cuda(reference)
    if cuda is None:
        return [
            note(
                f"which CUDA {reference} has is known once it is here",
                f"Run `docker pull {reference}`, and `course doctor` again.",
            )
        ]
    return list(dict.fromkeys(cuda_table.judge(gpu.driver, cuda, gpu.capability) for gpu in machine.gpus.found))


CHECK = Check("CUDA versions", examine, seconds=8)
