"""What doctor says of a real bundle on boards of several kinds."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from bnn_deploy.bundle.bundle import Bundle
from bnn_deploy.devices.system_state import Processor, SystemState
from bnn_deploy.doctor.boards import check_board
from bnn_deploy.doctor.check import Check, Status
from tests.doctor.states import ARM, ORIN_NANO, RASPBERRY_PI_4, X86_64_PC


def rows(state: SystemState, bundle: Bundle) -> dict[str, Check]:
    return {check.name: check for check in check_board(state, bundle)}


def of_target(bundle: Bundle, target: str, *flags: str) -> Bundle:
    """The bundle as if it were for another target, which is all that doctor looks at."""
    processor: dict[str, Any] = {**bundle.manifest["processor"], "required_cpu_flags": list(flags)}
    return Bundle(bundle.path, {**bundle.manifest, "target": target, "processor": processor})


def test_the_right_bundle(board_bundle: Bundle) -> None:
    """A bundle made for the board gets a warning, or its needs are not shown."""
    checks = rows(RASPBERRY_PI_4, board_bundle)
    assert {check.status for check in checks.values()} == {Status.OK}
    assert checks["bundle"].found == "target rpi4, arm64, runs"
    assert checks["glibc"].found.startswith("2.36, model.so needs 2.")
    assert "the bundle takes" in checks["memory"].found and "the bundle takes" in checks["disk"].found


def test_wrong_architecture(board_bundle: Bundle) -> None:
    """An Arm bundle on a PC passes, or the advice does not name the PC's target."""
    check = rows(X86_64_PC, board_bundle)["bundle"]
    assert check.status is Status.ERROR and "x86_64" in check.advice and "--target x86-64-v4" in check.advice
    check = rows(replace(RASPBERRY_PI_4, machine="armv7l"), board_bundle)["bundle"]
    assert check.status is Status.ERROR and "no target for armv7l" in check.advice


def test_missing_instructions(board_bundle: Bundle) -> None:
    """A bundle that would die of an illegal instruction is let through."""
    check = rows(RASPBERRY_PI_4, of_target(board_bundle, "rpi5", "asimd", "asimddp"))["bundle"]
    assert check.status is Status.ERROR and "lacks asimddp" in check.advice and "arm64 or rpi4" in check.advice
    unknown = rows(replace(RASPBERRY_PI_4, cpu_flags=()), board_bundle)["bundle"]
    assert unknown.status is Status.OK and "unknown" in unknown.found


def test_a_better_target(board_bundle: Bundle) -> None:
    """A bundle for other cores than the board's gets no hint, or one for any core gets a needless one."""
    check = rows(ORIN_NANO, board_bundle)["bundle"]
    assert check.status is Status.WARNING and "--target arm64 or orin-cpu" in check.advice
    assert rows(ORIN_NANO, of_target(board_bundle, "arm64", "asimd"))["bundle"].status is Status.OK
    unknown_core = replace(ORIN_NANO, processors=(Processor(ARM, 0xFFF),))
    assert rows(unknown_core, board_bundle)["bundle"].status is Status.OK


def test_kernel_sets(board_bundle: Bundle) -> None:
    """doctor names other kernels of a bundle than its runtime takes there: the in-order ones where all cores are."""
    processor = {**board_bundle.manifest["processor"], "kernel_sets": [{"name": "out-of-order"}, {"name": "in-order"}]}
    both = Bundle(board_bundle.path, {**board_bundle.manifest, "target": "arm64", "processor": processor})
    for parts, kernels in (
        ([0xD08], "out-of-order"),
        ([0xD03], "in-order"),
        ([0xD03, 0xD08], "out-of-order"),
        ([0xD03, 0xFFF], "out-of-order"),
        ([], "out-of-order"),
    ):
        state = replace(RASPBERRY_PI_4, processors=tuple(Processor(ARM, part) for part in parts))
        assert rows(state, both)["bundle"].found == f"target arm64, arm64, runs with its {kernels} kernels"


def test_old_glibc(board_bundle: Bundle) -> None:
    """A system on which model.so cannot be loaded is let through, or called useless although the runner works."""
    for version in ("2.16", "2.4"):
        check = rows(replace(RASPBERRY_PI_4, glibc=version), board_bundle)["glibc"]
        assert check.status is Status.WARNING and "static runner" in check.advice
    assert rows(replace(RASPBERRY_PI_4, glibc="3.0"), board_bundle)["glibc"].status is Status.OK


def test_too_large(board_bundle: Bundle) -> None:
    """A bundle that does not fit the board's memory or disk is found out only by the kernel's killer of processes."""
    small = replace(RASPBERRY_PI_4, memory_available_bytes=1000, disk_available_bytes=1000)
    for name in ("memory", "disk"):
        assert rows(small, board_bundle)[name].status is Status.ERROR
    memory = sum(board_bundle.manifest[f"{name}_bytes"] for name in ("weights", "arena", "workspace"))
    for available, status in ((memory, Status.OK), (memory - 1, Status.ERROR)):
        state = replace(RASPBERRY_PI_4, memory_available_bytes=available)
        assert rows(state, board_bundle)["memory"].status is status
