"""What doctor says of the GPUs of boards and machines, and of bundles for them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from bnn_deploy.bundle.bundle import Bundle
from bnn_deploy.devices.system_state import SystemState
from bnn_deploy.doctor.boards import check_board
from bnn_deploy.doctor.check import Check, Status
from bnn_deploy.doctor.gpu import driver_cuda, gpu_target
from tests.doctor.states import ORIN_NANO, RASPBERRY_PI_4, X86_64_PC

H200_PC = replace(
    X86_64_PC,
    gpu_driver="550.54.15",
    gpu_name="NVIDIA H200",
    gpu_compute_capability="9.0",
    gpu_memory_bytes=143771 << 20,
)
XAVIER = replace(ORIN_NANO, board="NVIDIA Jetson Xavier NX Developer Kit", jetson_linux="R35.4.1")


def gpu_row(state: SystemState) -> Check | None:
    return next((check for check in check_board(state) if check.name == "GPU"), None)


@pytest.mark.parametrize(
    ("board", "expected"),
    [
        ("NVIDIA Jetson Nano Developer Kit", "sm_53, CUDA 12.6: compile with --target jetson-nano"),
        ("NVIDIA Jetson TX1 Developer Kit", "sm_53, CUDA 12.6: compile with --target jetson-nano"),
        ("quill", "sm_62, CUDA 12.6"),
        ("NVIDIA Jetson TX2 NX Developer Kit", "sm_62, CUDA 12.6"),
        ("Jetson-AGX", "sm_72, CUDA 12.6: compile with --target jetson-xavier"),
        ("NVIDIA Jetson Xavier NX Developer Kit", "sm_72, CUDA 12.6: compile with --target jetson-xavier"),
        ("NVIDIA Jetson AGX Orin Developer Kit", "sm_87, CUDA 12.6: compile with --target orin"),
        (
            "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super",
            "sm_87, CUDA 12.6: compile with --target orin",
        ),
        ("NVIDIA Jetson of tomorrow", "of unknown architecture, CUDA 12.6"),
    ],
)
def test_jetsons(board: str, expected: str) -> None:
    """Breaks if a GPU is taken for another generation's: an "Orin Nano" for a "Nano"."""
    row = gpu_row(replace(ORIN_NANO, board=board))
    assert row is not None and row.status is Status.OK and row.found == expected
    assert bool(row.advice) == ("--target" not in expected)


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (H200_PC, "NVIDIA H200, sm_90, driver 550.54.15, CUDA 12.4, 150.8 GB: compile with --target h200"),
        (
            replace(H200_PC, gpu_name="NVIDIA L4", gpu_compute_capability="8.9", gpu_memory_bytes=None),
            "NVIDIA L4, sm_89, driver 550.54.15, CUDA 12.4: compile with --target cuda --arch sm_89",
        ),
        (replace(H200_PC, gpu_compute_capability="12.0"), "NVIDIA H200, sm_120, driver 550.54.15, CUDA 12.4, 150.8 GB"),
        (replace(X86_64_PC, gpu_driver="390.157"), "of unknown architecture, driver 390.157, unknown CUDA"),
        (replace(H200_PC, emulated=True), None),
        (X86_64_PC, None),
        (RASPBERRY_PI_4, None),
    ],
)
def test_other_machines(state: SystemState, expected: str | None) -> None:
    """Breaks if a GPU, its driver or its target is not named, or a guess stands for what is unknown."""
    row = gpu_row(state)
    assert (row.found if row else None) == expected


@pytest.mark.parametrize(
    ("release", "cuda"),
    [
        ("R28.2", None),
        ("R32.7.4", (10, 2)),
        ("R35.4.1", (11, 4)),
        ("R36.3.0", (12, 2)),
        ("R36.4.3", (12, 6)),
        ("R38.2.0", (13, 0)),
        (None, None),
    ],
)
def test_cuda_of_jetson_linux(release: str | None, cuda: tuple[int, int] | None) -> None:
    """Breaks if JetPack 4 to 7 are taken for one another, or the toolkit that happens to be installed decides."""
    assert driver_cuda(replace(ORIN_NANO, jetson_linux=release, cuda_version="99.9", gpu_driver="540.4.0")) == cuda


@pytest.mark.parametrize(
    ("driver", "cuda"),
    [
        ("440.33.01", (10, 2)),
        ("470.256.02", (11, 4)),
        ("525.147.05", (12, 0)),
        ("535.54.03", (12, 2)),
        ("570.26", (12, 8)),
        ("580.65.06", (13, 0)),
        ("999.1", (13, 0)),
        ("418.40", None),
        ("nonsense", None),
    ],
)
def test_cuda_of_drivers(driver: str, cuda: tuple[int, int] | None) -> None:
    """Breaks if a driver is believed to load what it cannot."""
    assert driver_cuda(replace(H200_PC, gpu_driver=driver)) == cuda


def for_gpu(bundle: Bundle, capability: str, **changes: Any) -> Bundle:
    """The bundle as if its kernels were for a GPU, which is all that doctor looks at."""
    needs = {"compute_capability": capability, "needs_cuda": "12.2", "needs_cuda_ptx": "11.4", **changes}
    processor = {**bundle.manifest["processor"], "required_cpu_flags": []}
    return Bundle(bundle.path, {**bundle.manifest, "target": "some", "processor": processor, "gpu": needs})


@pytest.mark.parametrize(
    ("state", "capability", "status", "words"),
    [
        (ORIN_NANO, "8.7", Status.OK, ("target some, sm_87, runs",)),
        # A driver of CUDA 11.4 translates the PTX; for Xavier there is no newer one.
        (
            replace(ORIN_NANO, jetson_linux="R35.4.1"),
            "8.7",
            Status.OK,
            ("runs once the driver has translated its PTX",),
        ),
        (XAVIER, "7.2", Status.OK, ("runs once the driver has translated its PTX",)),
        (ORIN_NANO, "8.0", Status.OK, ("runs",)),
        (ORIN_NANO, "7.2", Status.WARNING, ("PTX", "--target orin")),
        (XAVIER, "8.7", Status.ERROR, ("sm_72, older", "--target jetson-xavier")),
        (
            replace(ORIN_NANO, jetson_linux="R32.7.1"),
            "8.7",
            Status.ERROR,
            ("supports CUDA 10.2: install one of CUDA 11.4",),
        ),
        (replace(ORIN_NANO, board="NVIDIA Jetson of tomorrow"), "8.7", Status.OK, ("architecture unknown",)),
        (replace(ORIN_NANO, jetson_linux=None), "8.7", Status.OK, ("CUDA unknown",)),
        (RASPBERRY_PI_4, "8.7", Status.ERROR, ("no NVIDIA driver", "CUDA 11.4 or newer, or compile for the processor")),
    ],
)
def test_bundles(
    board_bundle: Bundle, state: SystemState, capability: str, status: Status, words: tuple[str, ...]
) -> None:
    """Breaks if a bundle that cannot run passes, or one that can is refused, or nobody hears what to do."""
    bundle = for_gpu(board_bundle, capability)
    check = next(check for check in check_board(state, bundle) if check.name == "bundle")
    assert check.status is status, check
    assert bool(check.advice) == (status is not Status.OK)
    for word in words:
        assert word in f"{check.found} {check.advice}"


def test_cubin_of_cuda_13(board_bundle: Bundle) -> None:
    """Breaks if a driver that can neither load the machine code nor translate the PTX is said to run a bundle."""
    bundle = for_gpu(board_bundle, "7.2", needs_cuda="11.0", needs_cuda_ptx="13.0")
    check = next(check for check in check_board(ORIN_NANO, bundle) if check.name == "bundle")
    assert check.status is Status.ERROR and "supports CUDA 12.6: install one of CUDA 13.0" in check.advice


def test_gpu_bundle_for_another_processor(board_bundle: Bundle) -> None:
    """Breaks if a Jetson's bundle is said to run beside a GPU of an x86-64 machine."""
    check = next(check for check in check_board(H200_PC, for_gpu(board_bundle, "8.7")) if check.name == "bundle")
    assert check.status is Status.ERROR and "This board is x86_64" in check.advice and "--target h200" in check.advice
    assert gpu_target(replace(RASPBERRY_PI_4, gpu_driver="550.54.15", gpu_compute_capability="8.9")) is None


def test_runner_of_a_gpu_bundle_is_not_static(board_bundle: Bundle) -> None:
    """Breaks if somebody without glibc is told that the runner works all the same, which loads the driver."""
    lacking = replace(ORIN_NANO, glibc=None)
    advice = {
        name: next(check for check in check_board(lacking, bundle) if check.name == "glibc").advice
        for name, bundle in {"gpu": for_gpu(board_bundle, "8.7"), "processor": board_bundle}.items()
    }
    assert "the runner needs it, too" in advice["gpu"] and "static runner" in advice["processor"]
