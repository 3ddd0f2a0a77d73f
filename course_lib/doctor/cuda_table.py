"""Driver against the image's CUDA against the GPU's compute capability: the rules, as tables and one pure function.

Sources (read 2026-11):
- drivers: https://docs.nvidia.com/deploy/cuda-compatibility/minor-version-compatibility.html
- first CUDA that compiles for a capability: https://docs.nvidia.com/cuda/archive/12.9.1/cuda-features-archive/index.html
  (12.8: sm_100, sm_120; 12.9: sm_103, sm_121) and the release notes of CUDA 10.0, 11.0, 11.1, 11.4, 11.8 and 13.0
- CUDA 13 starts at Turing (7.5), CUDA 12 at Maxwell (5.0): the notes on deprecated architectures of CUDA 12.9 and 12.0
- NGC images: https://docs.nvidia.com/deeplearning/frameworks/pytorch-release-notes/
Not checked against a page: NGC 25.11, and the rows of GPUs before sm_100. An image that is present is asked itself.
"""

from __future__ import annotations

import re

from course_lib.doctor.finding import Finding, error, ok, warning

Two = tuple[int, int]

#: The oldest driver branch for each major version of CUDA; within one, any newer image runs (minor version compatibility).
MINIMUM_DRIVER = {11: 450, 12: 525, 13: 580}
#: The oldest GPUs that each major version still knows.
OLDEST_CAPABILITY: dict[int, Two] = {11: (3, 5), 12: (5, 0), 13: (7, 5)}
#: The first CUDA that makes code for a capability. GB10, the DGX Spark's, is 12.1.
FIRST_CUDA: dict[Two, Two] = {
    (7, 5): (10, 0),
    (8, 0): (11, 0),
    (8, 6): (11, 1),
    (8, 7): (11, 4),
    (8, 9): (11, 8),
    (9, 0): (11, 8),
    (10, 0): (12, 8),
    (12, 0): (12, 8),
    (10, 3): (12, 9),
    (12, 1): (12, 9),
    (11, 0): (13, 0),
}
#: CUDA of NGC's PyTorch images, for one that is not here yet and can't be asked.
NGC_CUDA: dict[str, Two] = {"25.11": (13, 0), "25.12": (13, 1)}


def two(text: str) -> Two | None:
    """The first two numbers of a version: "13.0.2.006" is (13, 0), "12.1" is (12, 1)."""
    found = re.match(r"\s*(\d+)(?:\.(\d+))?", text)
    return (int(found[1]), int(found[2] or 0)) if found else None


def ngc_cuda(reference: str) -> Two | None:
    """CUDA of an NGC image by its tag, where the table has it."""
    found = re.search(r":(\d\d\.\d\d)-py3", reference)
    return NGC_CUDA.get(found[1]) if found else None


def judge(driver: str, cuda: Two, capability: str) -> Finding:
    """Whether a driver runs an image's CUDA on a GPU.

    Args:
        driver: the driver's version, as in "580.95.05".
        cuda: the image's CUDA, as in (13, 0).
        capability: the GPU's compute capability, as in "12.1".
    """
    have, wanted, gpu = two(driver), MINIMUM_DRIVER.get(cuda[0]), two(capability)
    name = f"CUDA {cuda[0]}.{cuda[1]}"
    if have is None or gpu is None or wanted is None:
        return warning(
            f"driver {driver}, {name}, compute capability {capability}: not in the course's table",
            "Compare them on https://docs.nvidia.com/deploy/cuda-compatibility/.",
        )
    if have[0] < wanted:
        return error(
            f"driver {driver} is too old for the image's {name}, which wants {wanted} or newer",
            f"Install a driver of branch {wanted} or newer, or set NGC_BASE to an image with an older CUDA.",
        )
    sm = f"sm_{gpu[0]}{gpu[1]}"
    if gpu < OLDEST_CAPABILITY[cuda[0]]:
        return error(
            f"the image's {name} no longer knows this GPU (compute capability {capability}, {sm})",
            f"Set NGC_BASE to an image with CUDA {cuda[0] - 1}, or use PROFILE=cpu.",
        )
    first = FIRST_CUDA.get(gpu)
    if first is None or cuda >= first:
        return ok(f"driver {driver} runs the image's {name} on compute capability {capability} ({sm})")
    siblings = [other for other, since in FIRST_CUDA.items() if other[0] == gpu[0] and other < gpu and since <= cuda]
    if siblings:
        near = max(siblings)
        return warning(
            f"the image's {name} has no code of its own for {sm}; what it has for sm_{near[0]}{near[1]}, of the same family, runs",
            f"For speed, set NGC_BASE to an image with CUDA {first[0]}.{first[1]} or newer.",
        )
    return error(
        f"the image's {name} has no code for {sm}, which came with CUDA {first[0]}.{first[1]}: programs end with `no kernel image is available`",
        f"Set NGC_BASE to an image with CUDA {first[0]}.{first[1]} or newer.",
    )
