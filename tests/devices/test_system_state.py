"""Profiles and states of boards are read as untrusted text: what is right arrives, anything else is one sentence."""

from __future__ import annotations

import copy
import dataclasses
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from bnn_deploy.bundle.bundle import Bundle
from bnn_deploy.codegen.linker import RUNTIME_SOURCES
from bnn_deploy.devices.arm_cores import arm_core
from bnn_deploy.devices.probe import probe_program, run_probe
from bnn_deploy.devices.runner_report import read_profile
from bnn_deploy.devices.system_state import Processor, SystemState, throttling_text
from bnn_deploy.errors import DeviceError, ToolError
from tests.boards.emulated_board import EmulatedBoard, needs_board
from tests.runtime.toy_network import toy_input

SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "schemas" / "runner_profile.schema.json").read_text())
STATE_SCHEMA = {"$defs": SCHEMA["$defs"], "$ref": "#/$defs/system_state"}
NOTHING: dict[str, Any] = {"cpus": [], "temperatures": {}, "emulated": False}
RASPBERRY_PI = SystemState(
    host="raspberrypi",
    board="Raspberry Pi 4 Model B Rev 1.4",
    machine="aarch64",
    kernel="Linux 6.6.31+rpt-rpi-v8",
    processors=(Processor(0x41, 0xD08, 1_500_000, 600_000, 1_800_000, "ondemand"), Processor()),
    cpu_flags=("fp", "asimd"),
    temperatures={"cpu-thermal": 48.686},
    throttled=0x50005,
    userland_bits=64,
    glibc="2.36",
    load_average=0.25,
    memory_total_bytes=4 << 30,
    memory_available_bytes=3 << 30,
    disk_available_bytes=10 << 30,
)


def test_states_survive_json() -> None:
    """A state that is written into a report and read again is another one, or the schema does not describe it."""
    for state in (RASPBERRY_PI, SystemState(), SystemState(emulated=True, power_mode="MAXN", jetson_linux="R36.4.3")):
        value = state.to_dict()
        jsonschema.validate(value, STATE_SCHEMA)
        assert SystemState.from_json(json.dumps(value)) == state


def test_unknown_fields_are_passed_over() -> None:
    """A runner that tells more, of a later version, is refused."""
    assert SystemState.from_json(json.dumps({**NOTHING, "fan": {"rpm": 3000}})) == SystemState()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"host": 5}, "host is 5, expected printable text"),
        ({"board": "\x1b[2J"}, r"board is '\\x1b\[2J', expected printable text"),
        ({"kernel": "x" * 10_000}, "kernel is 'xxx.*…, expected"),
        ({"throttled": -1}, "throttled is -1, expected a whole number from 0 to 4294967295"),
        ({"throttled": True}, "throttled is true, expected"),
        ({"throttled": 1.5}, "throttled is 1.5, expected"),
        ({"memory_total_bytes": 1 << 80}, "memory_total_bytes is a number beyond 64 bits"),
        ({"load_average": float("nan")}, "load_average is nan, expected a number"),
        ({"load_average": "0.5"}, "load_average is '0.5', expected a number"),
        ({"userland_bits": 16}, "userland_bits is 16, expected 32 or 64, or null"),
        ({"emulated": None}, "emulated is null, expected true or false"),
        ({"emulated": 1}, "emulated is 1, expected true or false"),
        ({"cpus": {}}, "cpus is an object of 0, expected a list"),
        ({"cpus": [5]}, r"cpus\[0\] is 5, expected an object"),
        ({"cpus": [{}, {"part": 4096}]}, r"cpus\[1\].part is 4096, expected a whole number from 0 to 4095"),
        ({"cpus": [{"governor": ["x"]}]}, r"cpus\[0\].governor is a list of 1, expected"),
        ({"cpus": [{}] * 5000}, "cpus is a list of 5000, expected a list of at most 4096"),
        ({"temperatures": []}, "temperatures is a list of 0, expected an object"),
        ({"temperatures": {"a\nb": 1}}, "expected zones of printable names"),
        ({"temperatures": {"cpu": 1e9}}, "temperatures.cpu is 1000000000.0, expected a number from -273.15 to 1000"),
        ({"temperatures": {str(number): 1 for number in range(300)}}, "expected an object of at most 256"),
    ],
)
def test_nonsense_in_a_state(changes: dict[str, Any], message: str) -> None:
    """A board can make this program print control characters, count with nonsense, or fail with a traceback."""
    with pytest.raises(DeviceError, match=f"^the state of pi: .*{message}.*; compile the bundle again"):
        SystemState.from_json(json.dumps({**NOTHING, **changes}), "the state of pi")


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "null", "3", "[]", '"{}"', '{"cpus": 9' + "9" * 5000 + "}"])
def test_no_state_at_all(text: str) -> None:
    """Text that is no JSON object ends in a traceback."""
    with pytest.raises(DeviceError, match="expected"):
        SystemState.from_json(text)


def test_throttling_text() -> None:
    """A bit of the Raspberry Pi's throttling is explained as another one, or what was before as what is now."""
    assert throttling_text(0) == "none"
    assert throttling_text(0x50005) == "under-voltage now, throttled now"
    assert throttling_text(0x50000) == "under-voltage since boot, throttled since boot"
    assert throttling_text(0xA0002) == "frequency capped now, soft temperature limit since boot"
    assert throttling_text(0x8) == "soft temperature limit now"
    assert throttling_text(0x100010) == "unknown bits 0x100010"


def test_cores() -> None:
    """A core has another's name, or Python and the C runtime disagree which cores are in-order."""
    names = {0xD03: "Cortex-A53", 0xD08: "Cortex-A72", 0xD0B: "Cortex-A76", 0xD42: "Cortex-A78AE", 0xD0C: "Neoverse-N1"}
    for part, name in names.items():
        core = arm_core(0x41, part)
        assert core is not None and core.name == name and core.in_order == (part == 0xD03)
    assert arm_core(0x4E, 0xD03) is None and arm_core(0x41, None) is None and arm_core(None, 0xD03) is None
    source = (RUNTIME_SOURCES / "cpu/kernel_set.c").read_text()
    rows = re.findall(r"\{0x([0-9a-f]+), 0x([0-9a-f]+)\}, +/\* ([\w-]+)", source)
    assert len(rows) > 3
    in_c = {(int(implementer, 16), int(part, 16)): name for implementer, part, name in rows}
    in_python = {}
    for implementer in (0x41, 0x4E):
        for part in range(0xD00, 0x1000):  # the 64-bit ones: kernel sets are for arm64
            core = arm_core(implementer, part)
            if core is not None and core.in_order and part != 0xD01:  # Cortex-A32 has no 64-bit state
                in_python[implementer, part] = core.name
    assert in_python == in_c


@pytest.fixture(scope="module")
def written(device_host_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the runner writes of the toy network: three repeats of four steps."""
    folder = tmp_path_factory.mktemp("profile")
    np.save(folder / "x.npy", toy_input())
    command = [device_host_bundle.runner, "--input", "x.npy", "--profile", "p.json", "--repeat", "3"]
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    return dict(json.loads((folder / "p.json").read_text(encoding="utf-8")))


def test_profile_is_read(device_host_bundle: Bundle, written: dict[str, Any]) -> None:
    """A field of the runner's profile is lost or lands in another one."""
    profile = read_profile(json.dumps(written), device_host_bundle, "pi")
    assert profile.board == "pi" and profile.kernel_set == "" and not profile.emulated
    np.testing.assert_array_equal(profile.step_seconds, written["step_seconds"])
    np.testing.assert_array_equal(profile.total_seconds, written["total_seconds"])
    assert profile.step_seconds.dtype == profile.total_seconds.dtype == np.float64
    assert profile.peak_memory_bytes == written["peak_memory_bytes"]
    assert profile.copy_bytes_per_second == written["copy_bytes_per_second"]
    assert profile.before == SystemState.from_json(json.dumps(written["system_before"]))
    assert profile.after == SystemState.from_json(json.dumps(written["system_after"]))
    assert profile.after is not None and profile.after.host == os.uname().nodename
    assert read_profile(json.dumps(written), device_host_bundle, "pi", emulated=True).emulated
    assert read_profile(json.dumps({**written, "emulated": True}), device_host_bundle, "pi").emulated


def test_profile_of_another_kernel_set(device_host_bundle: Bundle, written: dict[str, Any]) -> None:
    """Kernels of the set that a board chose pass for another bundle's, or those of another set for its own."""
    manifest = copy.deepcopy(device_host_bundle.manifest)
    manifest["processor"]["kernel_sets"] = [{"name": "first"}, {"name": "second"}]
    report = copy.deepcopy(written)
    for step, found in zip(manifest["steps"], report["steps"], strict=True):
        step["kernels"] = [found["kernel"] + "_second"]
        found["kernel"] += "_second"
    bundle = dataclasses.replace(device_host_bundle, manifest=manifest)
    assert read_profile(json.dumps({**report, "kernel_set": "second"}), bundle, "pi").kernel_set == "second"
    with pytest.raises(DeviceError, match="expected the 4 kernels of the bundle"):
        read_profile(json.dumps({**report, "kernel_set": "first"}), bundle, "pi")
    with pytest.raises(DeviceError, match="kernel_set is 'third', expected 'first', 'second'"):
        read_profile(json.dumps({**report, "kernel_set": "third"}), bundle, "pi")


Change = Callable[[dict[str, Any]], object]
DAMAGES: dict[str, tuple[Change, str]] = {
    "an old runner": (lambda report: report.pop("format"), "format is missing"),
    "another format": (lambda report: report.update(format="x"), "format is 'x', expected"),
    "a newer version": (lambda report: report.update(format_version=2), "format_version is 2, expected 1"),
    "another kernel set": (lambda report: report.update(kernel_set="fast"), "kernel_set is 'fast', expected ''"),
    "another kernel": (lambda report: report["steps"][1].update(kernel="x"), "expected the 4 kernels of the bundle"),
    "a layer too few": (lambda report: report["steps"].pop(), "expected the 4 kernels of the bundle"),
    "no steps": (lambda report: report.update(steps=None), "steps is null, expected a list"),
    "a repeat too few": (lambda report: report["total_seconds"].pop(), "total_seconds is a list of 2, expected"),
    "a row too few": (lambda report: report["step_seconds"].pop(), "expected 3 lists of 4 numbers"),
    "a ragged row": (lambda report: report["step_seconds"][1].pop(), "expected lists of equally many numbers"),
    "a negative time": (
        lambda report: report["total_seconds"].__setitem__(0, -1.0),
        "total_seconds is a list of 3, expected lists of equally many numbers",
    ),
    "infinity": (lambda report: report.update(total_seconds=[1e999] * 3), "total_seconds is a list of 3, expected"),
    "text": (lambda report: report.update(total_seconds=["1", "2", "3"]), "expected lists of equally many numbers"),
    "no times": (lambda report: report.pop("step_seconds"), "step_seconds is missing"),
    "no repeats": (lambda report: report.update(repeat=0), "repeat is 0, expected"),
    "no state": (lambda report: report.pop("system_after"), "system_after is missing"),
    "a bad state": (lambda report: report["system_before"].update(throttled="x"), "system_before.throttled is 'x'"),
    "bad memory": (lambda report: report.update(peak_memory_bytes=-5), "peak_memory_bytes is -5, expected"),
    "bad bandwidth": (lambda report: report.update(copy_bytes_per_second="1"), "copy_bytes_per_second is '1'"),
    "no emulation": (lambda report: report.pop("emulated"), "emulated is missing"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damaged_profiles(device_host_bundle: Bundle, written: dict[str, Any], name: str) -> None:
    """A profile of another network, of an old runner, or of nonsense is summarised as if it were one of this bundle."""
    change, message = DAMAGES[name]
    report = copy.deepcopy(written)
    change(report)
    with pytest.raises(DeviceError, match=r"^pi: the profile by the runner of ") as failure:
        read_profile(json.dumps(report), device_host_bundle, "pi")
    assert message in str(failure.value)
    assert str(failure.value).endswith(".") and "compile the bundle again" in str(failure.value)


def test_probes_of_other_machines() -> None:
    """`doctor` sends a probe of another architecture to a board, or has none for a 32-bit system."""
    machines = {"x86_64": 62, "aarch64": 183, "armv7l": 40, "armv6l": 40, "armv8l": 40}
    for machine, number in machines.items():
        header = probe_program(machine).read_bytes()[:20]
        assert header[:4] == b"\x7fELF" and header[18] == number
    assert probe_program("aarch64") == probe_program("arm64")
    for machine in ("riscv64", "armv7b", ""):
        with pytest.raises(DeviceError, match="bnn-deploy knows machines of x86_64, arm64, arm"):
            probe_program(machine)


@pytest.mark.board
@pytest.mark.parametrize(
    ("flavour", "expected"),
    [
        (
            "raspberry_pi_3",
            {"throttled": 0x50005, "board": "Raspberry Pi 3 Model B Plus Rev 1.3", "core": "Cortex-A53"},
        ),
        (
            "jetson_orin",
            {"power_mode": "15W", "jetson_linux": "R36.4.3", "cuda_version": "12.6.68", "core": "Cortex-A78AE"},
        ),
    ],
)
def test_probe_on_a_board(tmp_path: Path, flavour: str, expected: dict[str, Any]) -> None:
    """An emulated board whose /proc hides the emulator passes for a real one, or its programs do not answer the probe."""
    needs_board()
    board = EmulatedBoard(tmp_path / "board", flavour)
    shutil.copy(probe_program("aarch64"), board.home / "probe")
    state = SystemState.from_json(board.run("./probe"))
    assert state.emulated and state.machine == "aarch64" and state.userland_bits == 64
    core = arm_core(state.processors[0].implementer, state.processors[0].part)
    found = {**state.to_dict(), "core": core.name if core is not None else None}
    assert {name: found[name] for name in expected} == expected


def test_documentation() -> None:
    """A field of the profile is in the schema and not in docs/profile.md."""
    document = (Path(__file__).parents[2] / "docs" / "profile.md").read_text()
    state = SCHEMA["$defs"]["system_state"]["properties"]
    fields = {*SCHEMA["properties"], *state, *state["cpus"]["items"]["properties"]}
    assert len(fields) > 30 and not [name for name in fields if f"`{name}`" not in document]


def test_probe_that_fails(tmp_path: Path) -> None:
    """A probe that cannot run, or says nonsense, ends in a traceback."""
    with pytest.raises(ToolError, match="probe of pi failed"):
        run_probe([str(tmp_path / "absent")], "pi")
    with pytest.raises(ToolError, match="probe of pi failed"):
        run_probe(["false"], "pi")
    with pytest.raises(DeviceError, match="the state of pi: found '', expected JSON"):
        run_probe(["true"], "pi")
