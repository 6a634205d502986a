"""Every check of a board, on states of good boards in which one thing is wrong."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bnn_deploy.devices.base import Device, Session
from bnn_deploy.devices.system_state import Processor, SystemState
from bnn_deploy.doctor.boards import check_board, examine_device
from bnn_deploy.doctor.check import Check, Status
from bnn_deploy.errors import DeviceError
from tests.doctor.states import ARM, ORIN_NANO, RASPBERRY_PI_4, X86_64_PC


def rows(state: SystemState) -> dict[str, Check]:
    checks = check_board(state)
    named = {check.name: check for check in checks}
    assert len(named) == len(checks), "two rows of one name"
    return named


def test_a_board_in_good_order() -> None:
    """A board on which all is well gets warnings, or a check is missing."""
    checks = rows(RASPBERRY_PI_4)
    wanted = "board system instructions target glibc memory disk governor clock throttling temperature"
    assert list(checks) == wanted.split()
    assert {check.status for check in checks.values()} == {Status.OK}
    assert not any(check.advice for check in checks.values())
    assert checks["board"].found == "Raspberry Pi 4 Model B Rev 1.4"
    assert checks["target"].found == "4 x Cortex-A72: compile with --target arm64 or rpi4"
    assert checks["clock"].found == "1800 of 1800 MHz"


@pytest.mark.parametrize(
    ("changes", "name", "status", "words"),
    [
        ({"userland_bits": 32}, "system", Status.WARNING, ("32-bit programs", "static runner", "works", "model.so")),
        ({"machine": "armv7l", "userland_bits": 32}, "system", Status.ERROR, ("armv7l", "64-bit")),
        ({"machine": "riscv64"}, "system", Status.ERROR, ("riscv64", "arm64 or x86_64")),
        ({"cpu_flags": ("fp", "crc32")}, "instructions", Status.ERROR, ("NEON", "another board")),
        ({"cpu_flags": ()}, "instructions", Status.OK, ("unknown",)),
        ({"glibc": None}, "glibc", Status.WARNING, ("none found", "static runner")),
        ({"glibc": "nonsense"}, "glibc", Status.WARNING, ("nonsense", "static runner")),
        ({"memory_available_bytes": 50_000_000}, "memory", Status.WARNING, ("50 MB", "Close")),
        ({"memory_available_bytes": None}, "memory", Status.OK, ("unknown",)),
        ({"disk_available_bytes": 1_000_000}, "disk", Status.WARNING, ("1 MB", "Free")),
        ({"throttled": 0x1}, "throttling", Status.WARNING, ("under-voltage", "power supply")),
        ({"throttled": 0x50005}, "throttling", Status.WARNING, ("power supply", "and cool the board")),
        ({"throttled": 0x80000}, "throttling", Status.WARNING, ("Cool the board",)),
        ({"throttled": 0x10}, "throttling", Status.WARNING, ("vcgencmd get_throttled",)),
        ({"throttled": None}, "throttling", Status.WARNING, ("vcgencmd", "group video")),
        ({"temperatures": {"a": 50.0, "cpu-thermal": 81.2}}, "temperature", Status.WARNING, ("81 °C", "cpu-thermal")),
        ({"temperatures": None}, "temperature", Status.OK, ("unknown",)),
        ({"emulated": True}, "board", Status.OK, ("emulated", "never a latency")),
        ({"board": None}, "board", Status.OK, ("4 processors",)),
    ],
)
def test_one_thing_is_wrong(changes: dict[str, object], name: str, status: Status, words: tuple[str, ...]) -> None:
    """The row named does not notice, says nothing of what to do, or other rows complain as well."""
    checks = rows(replace(RASPBERRY_PI_4, **changes))
    assert checks[name].status is status
    assert status is Status.OK or checks[name].advice
    for word in words:
        assert word in f"{checks[name].found} {checks[name].advice}"
    others = [check for check in checks.values() if check.name not in (name, "target")]
    assert {check.status for check in others} == {Status.OK}


def test_governor_and_clock() -> None:
    """An idle board under "ondemand" is said to be throttled, or one that is held down under "performance" is not."""
    idle = Processor(ARM, 0xD08, 600_000, 600_000, 1_800_000, "ondemand")
    checks = rows(replace(RASPBERRY_PI_4, processors=(idle,) * 4))
    assert checks["governor"].status is Status.WARNING and "echo performance | sudo tee" in checks["governor"].advice
    assert checks["clock"].status is Status.OK and "600 of 1800 MHz" in checks["clock"].found
    held = replace(idle, governor="performance")
    checks = rows(replace(RASPBERRY_PI_4, processors=(*RASPBERRY_PI_4.processors[1:], held)))
    assert checks["governor"].status is Status.OK
    assert checks["clock"].status is Status.WARNING and "600 of 1800 MHz" in checks["clock"].found
    checks = rows(replace(RASPBERRY_PI_4, processors=(Processor(ARM, 0xD08),) * 4))
    assert checks["governor"].found == "unknown" and checks["clock"].found == "unknown"


@pytest.mark.parametrize(
    ("cores", "found"),
    [
        ([0xD03] * 4, "4 x Cortex-A53: compile with --target arm64 or rpi3"),
        ([0xD05] * 4 + [0xD0B] * 4, "4 x Cortex-A55, 4 x Cortex-A76: compile with --target arm64 or rpi5"),
        ([0xD03] * 4 + [0xD08] * 2, "4 x Cortex-A53, 2 x Cortex-A72: compile with --target arm64 or rpi4"),
        ([0xD0C] * 2, "2 x Neoverse-N1: compile with --target arm64"),
        ([0xFFF], "1 x unknown core: compile with --target arm64"),
        ([], "unknown cores: compile with --target arm64"),
    ],
)
def test_targets_by_cores(cores: list[int], found: str) -> None:
    """The target advised is for other cores, for the little ones of two kinds, or one that the board cannot run."""
    processors = tuple(Processor(ARM, part) for part in cores)
    assert rows(replace(ORIN_NANO, processors=processors))["target"].found == found


def test_a_core_without_the_instructions_of_its_target() -> None:
    """A target is advised although the kernel hides the instructions that it needs."""
    lacking = replace(ORIN_NANO, cpu_flags=("fp", "asimd"))
    assert rows(lacking)["target"].found == "6 x Cortex-A78AE: compile with --target arm64"
    assert rows(ORIN_NANO)["target"].found == "6 x Cortex-A78AE: compile with --target arm64 or orin-cpu"
    assert rows(ORIN_NANO)["instructions"].found == "NEON, dot products"


def test_x86_64() -> None:
    """A PC gets advice for Arm boards, or an old one passes."""
    checks = rows(X86_64_PC)
    assert checks["target"].found == "2 processors: compile with --target x86-64-v4"
    assert checks["instructions"].found == "AVX2, AVX-512"
    assert "throttling" not in checks
    old = rows(replace(X86_64_PC, cpu_flags=("sse2",)))
    assert old["instructions"].status is Status.ERROR and "avx2" in old["instructions"].found
    assert old["target"].status is Status.WARNING


def test_jetson() -> None:
    """A Jetson that is held to a few watts, or its GPU, goes unmentioned; or a Pi hears of GPUs."""
    checks = rows(ORIN_NANO)
    assert checks["power mode"].status is Status.WARNING
    assert checks["power mode"].found == "15W" and "sudo nvpmodel -m" in checks["power mode"].advice
    assert checks["Jetson Linux"].found == "R36.4.3"
    assert checks["GPU"].status is Status.OK
    assert checks["GPU"].found == "sm_87, CUDA 12.6: compile with --target orin" and not checks["GPU"].advice
    assert rows(replace(ORIN_NANO, power_mode="MAXN_SUPER"))["power mode"].status is Status.OK
    assert rows(replace(ORIN_NANO, power_mode=None))["power mode"].status is Status.WARNING
    assert "unknown" in rows(replace(ORIN_NANO, jetson_linux=None))["Jetson Linux"].found
    assert "GPU" not in rows(RASPBERRY_PI_4)


def test_a_board_that_tells_nothing() -> None:
    """A probe in an empty file system, where nearly all is unknown, ends in an error of ours or in wrong advice."""
    checks = rows(SystemState(machine="aarch64", kernel="Linux 6.1.0"))
    assert {check.status for check in checks.values()} <= {Status.OK, Status.WARNING}
    assert [name for name, check in checks.items() if check.status is Status.WARNING] == ["glibc"]


class Shelf(Device):
    """Two boards, or none."""

    name = "shelf"

    def __init__(self, states: dict[str, SystemState | DeviceError]) -> None:
        self.states = states

    def open(self, *arguments: object, **options: object) -> Session:
        raise AssertionError("doctor needs no session")

    def system_states(self) -> dict[str, SystemState | DeviceError]:
        return self.states


def test_every_board_of_a_device() -> None:
    """A fleet's second board is not looked at, or a device without boards passes for a good one."""
    states = {"a:1": RASPBERRY_PI_4, "b:2": replace(ORIN_NANO, host=""), "c:3": DeviceError("c:3: went away.")}
    report = examine_device(Shelf(states))
    first, second, third = report.boards
    assert report.device == "shelf" and not report.works
    assert (first.board, second.board, third.board) == ("raspberrypi at a:1", "b:2", "c:3")
    assert [check.name for check in second.checks][-1] == "GPU"
    assert [(check.status, check.advice) for check in third.checks] == [(Status.ERROR, "went away.")]
    assert [one.board for one in examine_device(Shelf({"a:1": RASPBERRY_PI_4})).boards] == ["shelf"]
    with pytest.raises(DeviceError, match="shelf has no board"):
        examine_device(Shelf({}))
