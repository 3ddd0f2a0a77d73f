"""GPUs: the rules as logic, the driver's answers from a program on the PATH, the engine's refusal for real."""

from __future__ import annotations

from pathlib import Path

import pytest
from machines import INFO, PutOnPath, a_machine

from course_lib import ledger, shell
from course_lib.doctor import cuda_in_container, cuda_table, cuda_versions, memory, nvidia, nvidia_toolkit
from course_lib.doctor.nvidia import Gpu, Gpus
from course_lib.images import pins

SPARK = Gpu("NVIDIA GB10", "580.95.05", "12.1")
H200 = Gpu("NVIDIA H200", "570.86.15", "9.0")


@pytest.mark.parametrize(
    ("driver", "cuda", "capability", "severity", "words"),
    [
        ("580.95.05", (13, 0), "12.1", "ok", "sm_121"),  # a DGX Spark with NGC 25.11
        ("590.44.01", (12, 4), "8.9", "ok", "sm_89"),  # newer drivers run older CUDA
        ("525.60.13", (12, 8), "9.0", "ok", "12.8"),  # minor version compatibility
        ("575.51.03", (12, 9), "12.1", "ok", "sm_121"),  # the first CUDA that knows GB10
        ("570.86.15", (13, 0), "9.0", "error", "wants 580"),
        ("470.256.02", (12, 0), "8.0", "error", "wants 525"),
        ("580.95.05", (12, 8), "12.1", "warning", "sm_120"),  # the sibling's code runs
        ("580.95.05", (12, 6), "12.1", "error", "no kernel image is available"),
        ("570.86.15", (12, 4), "12.0", "error", "came with CUDA 12.8"),
        ("580.95.05", (11, 0), "8.6", "warning", "sm_80"),
        ("580.95.05", (13, 0), "7.0", "error", "no longer knows"),
        ("550.54.15", (12, 4), "7.0", "ok", "sm_70"),
        ("580.95.05", (14, 0), "12.1", "warning", "not in the course's table"),
        ("[N/A]", (13, 0), "12.1", "warning", "not in the course's table"),
    ],
)
def test_driver_against_cuda_against_capability(
    driver: str, cuda: cuda_table.Two, capability: str, severity: str, words: str
) -> None:
    finding = cuda_table.judge(driver, cuda, capability)
    assert finding.severity == severity and words in finding.message
    assert bool(finding.remedy) == (severity != "ok")


def test_the_table_knows_the_image_that_the_course_builds_on() -> None:
    assert cuda_table.ngc_cuda(pins.load()["ngc-pytorch"].reference) == (13, 0)
    assert cuda_table.ngc_cuda("nvcr.io/nvidia/pytorch:19.01-py3") is None


def test_the_drivers_answer_is_read(put_on_path: PutOnPath) -> None:
    put_on_path("nvidia-smi", "printf 'NVIDIA GB10, 580.95.05, 12.1\\nNVIDIA H200, 570.86.15, 9.0\\n'")
    assert nvidia.look() == Gpus((SPARK, H200))
    found = cuda_versions.examine(a_machine(gpus=nvidia.look()))
    assert [f.severity for f in found] == ["ok", "error"] and "570.86.15 is too old" in found[1].message


def test_a_driver_that_does_not_work_is_quoted(put_on_path: PutOnPath) -> None:
    put_on_path("nvidia-smi", "echo 'Failed to initialize NVML: Driver/library version mismatch'; exit 18")
    gpus = nvidia.look()
    for profile, severity in (("cpu", "warning"), ("gpu", "error")):
        (finding,) = nvidia_toolkit.examine(a_machine(gpus=gpus, profile=profile))
        assert finding.severity == severity and "Driver/library version mismatch" in finding.message


def test_no_gpu_is_an_error_only_for_whom_wants_one() -> None:
    assert nvidia_toolkit.examine(a_machine())[0].severity == "note"
    (finding,) = nvidia_toolkit.examine(a_machine(profile="gpu"))
    assert finding.severity == "error" and "PROFILE=gpu" in finding.message
    assert cuda_versions.examine(a_machine()) == [] == cuda_in_container.examine(a_machine())


def test_a_gpu_takes_the_toolkit_by_runtime_or_by_cdi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    info = INFO | {"CDISpecDirs": [str(tmp_path)]}
    gpus = Gpus((SPARK,))
    (without,) = nvidia_toolkit.examine(a_machine(gpus=gpus, info=info, profile="gpu"))
    assert without.severity == "error" and "nvidia-container-toolkit" in without.remedy
    (tmp_path / "other.yaml").write_text("kind: vendor.com/net\n")
    assert nvidia_toolkit.examine(a_machine(gpus=gpus, info=info))[0].severity == "warning"
    (tmp_path / "nvidia.yaml").write_text("cdiVersion: 0.5.0\nkind: nvidia.com/gpu\n")
    (by_cdi,) = nvidia_toolkit.examine(a_machine(gpus=gpus, info=info))
    assert by_cdi.severity == "ok" and "CDI" in by_cdi.message and "nvidia.yaml" in by_cdi.message
    (tmp_path / "nvidia.yaml").unlink()
    (by_runtime,) = nvidia_toolkit.examine(a_machine(gpus=gpus, info=info | {"Runtimes": {"nvidia": {}}}))
    assert by_runtime.severity == "ok" and "runtime" in by_runtime.message


def test_gb10_shares_its_memory() -> None:
    unified = memory.examine(a_machine(gpus=Gpus((SPARK,))))[0].message
    assert "GPU and processor share" in unified
    assert "share" not in memory.examine(a_machine(gpus=Gpus((H200,))))[0].message


@pytest.mark.docker
def test_cuda_of_an_image_is_read_from_the_image(small_image: str, fresh_state: Path) -> None:
    assert cuda_versions.image_cuda(small_image) is None
    assert cuda_versions.image_cuda("no-such-image:1") is None
    tag = "course-test/cuda:1"
    container = shell.run(["docker", "create", small_image, "true"], show=False).output
    try:
        shell.run(["docker", "commit", "--change=ENV CUDA_VERSION=13.0.2.006", container, tag], show=False)
        assert cuda_versions.image_cuda(tag) == (13, 0)
    finally:
        shell.run(["docker", "rm", container], show=False)
        shell.run(["docker", "image", "rm", "--force", tag], show=False, check=False)


@pytest.mark.docker
@pytest.mark.skipif(bool(nvidia.look().found), reason="here a container gets a GPU")
def test_a_container_that_gets_no_gpu_is_an_error_with_the_engines_words(small_image: str, fresh_state: Path) -> None:
    assert cuda_in_container.some_image().startswith("course-base/python-slim:")
    (finding,) = cuda_in_container.examine(a_machine(gpus=Gpus((SPARK,)), profile="gpu"))
    assert finding.severity == "error" and "could not select device driver" in finding.message
    left = shell.run(["docker", "ps", "--all", "--format={{.Names}}", "--filter=name=doctor-cuda"], show=False)
    assert left.output == "" and ledger.rows() == []


@pytest.mark.docker
@pytest.mark.skipif(bool(nvidia.look().found), reason="here the probe succeeds")
def test_the_probe_itself_runs_in_the_base_image_and_misses_the_driver(small_image: str, fresh_state: Path) -> None:
    with pytest.raises(shell.CommandError, match=r"libcuda\.so\.1"):
        cuda_in_container.use_cuda(small_image)


@pytest.mark.gpu
@pytest.mark.docker
@pytest.mark.skipif(not nvidia.look().found, reason="no NVIDIA GPU here")
def test_a_container_uses_cuda(small_image: str, fresh_state: Path) -> None:
    assert nvidia.look().found[0].name in cuda_in_container.use_cuda(small_image, "--gpus=all")
