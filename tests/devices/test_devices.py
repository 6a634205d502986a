"""Devices: the same network gives the same bits here and on an emulated arm64 processor."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest

from bnn_deploy.bundle.bundle import Bundle
from bnn_deploy.devices import qemu
from bnn_deploy.devices.registry import get_device
from bnn_deploy.errors import BundleError, InputError, ToolError
from tests.devices.tapped import assert_taps_work
from tests.runtime.toy_network import HIDDEN, reference, toy_input
from tests.runtime.toy_taps import ARENA, tap


def needs_qemu() -> None:
    try:
        qemu.find_qemu()
    except ToolError as error:
        pytest.skip(str(error))


def test_local_equals_numpy(device_host_bundle: Bundle) -> None:
    """The local device loses or reorders batches."""
    array = toy_input(6)
    np.testing.assert_array_equal(get_device("local").run(device_host_bundle, array), reference(array))


@pytest.mark.qemu
@pytest.mark.parametrize("threads", [1, 3])
def test_qemu_equals_numpy(device_arm_bundle: Bundle, threads: int) -> None:
    """The arm64 runner needs something of this machine, or computes other bits."""
    needs_qemu()
    array = toy_input(6)
    result = get_device("qemu").run(device_arm_bundle, array, threads=threads)
    np.testing.assert_array_equal(result, reference(array))


@pytest.mark.parametrize("threads", [1, 2])
def test_local_taps(device_host_bundle: Bundle, threads: int) -> None:
    """The local device sees or forces other values than the steps have."""
    with get_device("local").open(device_host_bundle, threads) as session:
        assert_taps_work(session)
        with pytest.raises(InputError, match="no place of the network"):
            session.run_tapped(toy_input(), np.array([tap(1, ARENA, 704, 4)], np.int64), 4)


@pytest.mark.qemu
@pytest.mark.parametrize("threads", [1, 2])
def test_qemu_taps(device_arm_bundle: Bundle, threads: int) -> None:
    """The arm64 runner sees or forces other values than the steps have, or a wrong tap is not told."""
    needs_qemu()
    with get_device("qemu").open(device_arm_bundle, threads) as session:
        assert_taps_work(session)
        with pytest.raises(ToolError, match=r"row 0 of 'taps\.npy' is no place of this network"):
            session.run_tapped(toy_input(), np.array([tap(1, ARENA, 704, 4)], np.int64), 4)


@pytest.mark.qemu
def test_qemu_profile_is_marked_as_emulated(device_arm_bundle: Bundle) -> None:
    """An emulator's time could be taken for a latency, or columns do not match the steps."""
    needs_qemu()
    profile = get_device("qemu").open(device_arm_bundle, threads=2).profile(repeat=3, warmup=1)[0]
    assert profile.emulated and profile.after is not None and profile.after.emulated
    assert profile.peak_memory_bytes is None and profile.copy_bytes_per_second is None
    assert profile.step_seconds.shape == (3, len(device_arm_bundle.steps))
    assert profile.total_seconds.shape == (3,)
    assert (profile.step_seconds.sum(axis=1) <= profile.total_seconds).all()


def test_local_profile_adds_up(device_host_bundle: Bundle) -> None:
    """Step times are not parts of the whole, so a profile would mislead."""
    profile = get_device("local").open(device_host_bundle, threads=2).profile(repeat=4, warmup=0)[0]
    assert not profile.emulated
    assert profile.step_seconds.shape == (4, len(device_host_bundle.steps)) and (profile.step_seconds > 0).all()
    assert (profile.step_seconds.sum(axis=1) <= profile.total_seconds).all()


def test_local_profile_tells_of_this_machine(device_host_bundle: Bundle) -> None:
    """A profile does not say in which state the machine was."""
    profile = get_device("local").open(device_host_bundle).profile(repeat=2, warmup=1)[0]
    assert profile.before is not None and profile.after is not None
    assert profile.before.host == profile.after.host == os.uname().nodename
    assert profile.peak_memory_bytes and profile.copy_bytes_per_second and profile.kernel_set == ""


def test_state_of_this_machine() -> None:
    """`doctor --device local` has nothing to look at, or takes this machine for an emulator."""
    (state,) = get_device("local").system_states().values()
    assert (state.host, state.machine, state.emulated) == (os.uname().nodename, os.uname().machine, False)
    assert state.processors and state.memory_available_bytes and state.cpu_flags and state.userland_bits == 64


@pytest.mark.qemu
def test_state_of_the_emulator() -> None:
    """The emulator passes for a board, or its processor for this machine's."""
    needs_qemu()
    (state,) = get_device("qemu").system_states().values()
    assert (state.machine, state.emulated) == ("aarch64", True)
    assert "sse2" not in state.cpu_flags


def test_wrong_devices_are_refused(device_host_bundle: Bundle, device_arm_bundle: Bundle) -> None:
    """A bundle for another architecture ends in a crash of the loader or the emulator."""
    with pytest.raises(BundleError, match="emulates arm64"):
        get_device("qemu").run(device_host_bundle, toy_input())
    with pytest.raises(BundleError, match="--device qemu"):
        get_device("local").run(device_arm_bundle, toy_input())
    with pytest.raises(InputError, match="no device 'gpu'"):
        get_device("gpu")


def test_wrong_input_is_refused_before_running(device_arm_bundle: Bundle) -> None:
    """Bad arrays reach the runner instead of being named here."""
    for array in (toy_input(3), toy_input()[:, :4], toy_input().astype(np.float64), toy_input()[:0]):
        with pytest.raises(InputError):
            get_device("qemu").run(device_arm_bundle, array)
    with pytest.raises(InputError, match="threads"):
        get_device("qemu").run(device_arm_bundle, toy_input(), threads=0)
    with pytest.raises(InputError, match="repeats"):
        get_device("qemu").open(device_arm_bundle).profile(repeat=0)


@pytest.mark.qemu
def test_failure_on_the_device_is_a_tool_error(device_arm_bundle: Bundle) -> None:
    """A kernel that fails on a device goes unnoticed, or is reported without its layer."""
    needs_qemu()
    array = toy_input()
    array[0, 0] = 666
    with pytest.raises(ToolError, match=r"layer stem\.check"):
        get_device("qemu").run(device_arm_bundle, array)


def test_missing_qemu_is_explained(device_arm_bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without qemu the user sees a traceback instead of what to install."""
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ToolError, match="apt-get install qemu-user"):
        get_device("qemu").run(device_arm_bundle, toy_input())


@pytest.mark.qemu
def test_emulated_core_lacks_what_the_target_lacks() -> None:
    """The emulator offers every instruction, so code that faults on the device passes here."""
    needs_qemu()
    program = qemu.find_qemu()
    assert qemu.emulated_core(program, {"mcpu": "generic", "mattr": []}) == "cortex-a53"
    assert qemu.emulated_core(program, {"mcpu": "cortex-a72", "mattr": ["-crypto"]}) == "cortex-a72"
    assert qemu.emulated_core(program, {"mcpu": "no-such-core", "mattr": []}) == "max"
    assert qemu.emulated_core(program, {"mcpu": "generic", "mattr": ["+dotprod"]}) == "max"


def test_networks_of_several_outputs_are_refused(device_host_bundle: Bundle) -> None:
    """Devices move one array each way; another network must not lose outputs silently."""
    manifest = {**device_host_bundle.manifest, "outputs": device_host_bundle.manifest["outputs"] * 2}
    several = dataclasses.replace(device_host_bundle, manifest=manifest, path=Path("several"))
    for name in ("local", "qemu"):
        with pytest.raises(InputError, match="2 outputs"):
            get_device(name).run(several, toy_input())
    assert device_host_bundle.outputs[0].shape[1] == HIDDEN
