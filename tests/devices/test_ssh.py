"""Bundles on a board over ssh: a real OpenSSH server whose sessions are an emulated arm64 userland."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result

from bnn_deploy.bundle.bundle import Bundle
from bnn_deploy.devices.registry import get_device
from bnn_deploy.errors import InputError, ToolError
from tests.boards.board_server import BoardServer
from tests.devices.tapped import assert_taps_work
from tests.runtime.toy_network import reference, toy_input
from tests.runtime.toy_taps import ARENA, TOTAL_BYTES, tap, toy_taps

Invoke = Callable[..., Result]

ROOT = Path(__file__).parents[2]


def programs(server: BoardServer) -> list[Path]:
    """The programs that lie on a board, wherever."""
    return server.board.find("runner")


@pytest.mark.board
def test_a_board_gives_the_bits_of_numpy(pi: BoardServer, device_arm_bundle: Bundle) -> None:
    """A board's results differ from this machine's, a second session copies again, or something stays on the board."""
    array = toy_input(6)
    copied: list[str] = []
    with get_device(pi.address).open(device_arm_bundle, threads=2, progress=copied.append) as session:
        np.testing.assert_array_equal(session.run(array), reference(array))
        results = list(session.run_many(toy_input(2, seed) for seed in (5, 6)))
        np.testing.assert_array_equal(
            np.concatenate(results), reference(np.concatenate([toy_input(2, 5), toy_input(2, 6)]))
        )
        profile = session.profile(repeat=3, warmup=1)[0]
    assert profile.emulated and profile.board == pi.address
    assert profile.step_seconds.shape == (3, len(device_arm_bundle.steps)) and (profile.total_seconds > 0).all()
    assert copied and len(programs(pi)) == 1
    assert programs(pi)[0].read_bytes() == device_arm_bundle.runner.read_bytes()
    copied.clear()
    get_device(pi.address).open(device_arm_bundle, progress=copied.append).close()
    assert not copied
    assert pi.board.leftovers() == []


@pytest.mark.board
def test_taps_on_a_board(pi: BoardServer, device_arm_bundle: Bundle) -> None:
    """Over ssh to a board, files are cut at the wrong place or do not come back, or stay there."""
    with get_device(pi.address).open(device_arm_bundle, threads=2) as session:
        assert_taps_work(session)
    assert pi.board.leftovers() == []


def test_taps_over_ssh(pc: BoardServer, device_host_bundle: Bundle) -> None:
    """The same on a machine with GNU's tools; or a wrong tap is not told, and leaves something there."""
    with get_device(pc.address).open(device_host_bundle) as session:
        assert_taps_work(session)
        with pytest.raises(ToolError, match=r"row 0 of 'taps\.npy' is no place of this network"):
            session.run_tapped(toy_input(), np.array([tap(1, ARENA, 704, 4)], np.int64), 4)
        with pytest.raises(InputError, match="no values were given"):
            session.run_tapped(toy_input(), toy_taps(["sums"]), TOTAL_BYTES)
    assert pc.board.leftovers() == []


@pytest.mark.board
def test_the_state_of_a_board_comes_over_ssh(pi: BoardServer) -> None:
    """`doctor --device ssh://…` tells the state of this machine instead of the board's, or nothing."""
    (state,) = get_device(pi.address).system_states().values()
    assert state.board == "Raspberry Pi 4 Model B Rev 1.4" and state.machine == "aarch64" and state.emulated
    assert [(cpu.part, cpu.khz, cpu.governor) for cpu in state.processors] == [(0xD08, 1_500_000, "ondemand")] * 4
    assert state.memory_total_bytes == 3_885_396 * 1024
    assert pi.board.leftovers() == []


@pytest.mark.board
def test_failure_of_a_kernel_is_told(pi: BoardServer, device_arm_bundle: Bundle) -> None:
    """A kernel that fails on a board goes unnoticed, or is reported without its layer."""
    array = toy_input()
    array[0, 0] = 666
    with pytest.raises(ToolError, match=r"The runner of .* failed: runner: kernel toy_check of layer stem\.check"):
        get_device(pi.address).run(device_arm_bundle, array)
    assert pi.board.leftovers() == []


@pytest.mark.board
def test_commands_work_alike_over_ssh(
    pi: BoardServer, tmp_path: Path, invoke: Invoke, tiny_onnx: Path, arm_compilation: tuple[Path, Result]
) -> None:
    """`run`, `validate` and `profile` behave otherwise on an ssh device than on the local emulator."""
    bundle = arm_compilation[0] / "bundle"
    device = "ssh://pi@raspberrypi.local"
    array = np.random.default_rng(0).standard_normal((6, *Bundle.open(bundle).inputs[0].shape[1:])).astype(np.float32)
    np.save(tmp_path / "in.npy", array)
    reports = {}
    for name in ("qemu", device):
        output = tmp_path / f"out-{len(reports)}.npy"
        result = invoke("run", bundle, "--input", tmp_path / "in.npy", "--output", output, "--device", name)
        assert result.exit_code == 0, result.stderr
        result = invoke(
            "validate",
            tiny_onnx,
            "--bundle",
            bundle,
            "--level",
            3,
            "--samples",
            30,
            "--device",
            name,
            "--format",
            "json",
        )
        assert result.exit_code == 0, result.stderr
        reports[name] = json.loads(result.stdout)
    np.testing.assert_array_equal(np.load(tmp_path / "out-0.npy"), np.load(tmp_path / "out-1.npy"))
    assert reports[device] == {**reports["qemu"], "device": device}
    result = invoke("profile", bundle, "--device", device, "--repeat", 2, "--format", "json")
    assert result.exit_code == 0, result.stderr
    assert "emulat" in result.stdout
    assert pi.board.leftovers() == []


def test_gnu_tools_and_greetings(pc: BoardServer, device_host_bundle: Bundle) -> None:
    """Only busybox works, or a login script that prints something spoils the results; a folder with odd characters is missed."""
    odd = pc.board.root / "home" / 'it\'s "odd" $HOME;'
    odd.mkdir()
    (pc.folder / "session").write_text(pc.board.session_script({"HOME": str(odd)}, "echo 'Welcome to the board!'"))
    array = toy_input(200)
    with get_device(pc.address).open(device_host_bundle) as session:
        np.testing.assert_array_equal(session.run(array), reference(array))
        assert session.profile(repeat=2)[0].step_seconds.shape == (2, len(device_host_bundle.steps))
    assert len(programs(pc)) == 1 and odd in programs(pc)[0].parents
    assert not list((pc.board.root / "tmp").iterdir())


def test_the_listed_tools_are_enough(pc: BoardServer, tmp_path: Path, device_host_bundle: Bundle) -> None:
    """docs/devices.md promises that a board with these tools will do, and one of ours is not among them."""
    (listed,) = re.findall(r"^    (sh cat .*)$", (ROOT / "docs" / "devices.md").read_text(), flags=re.MULTILINE)
    (tmp_path / "tools").mkdir()
    for tool in listed.split():
        (tmp_path / "tools" / tool).symlink_to(str(shutil.which(tool)))
    (pc.folder / "session").write_text(pc.board.session_script({"PATH": str(tmp_path / "tools")}))
    with get_device(pc.address).open(device_host_bundle) as session:
        np.testing.assert_array_equal(session.run(toy_input()), reference(toy_input()))
        assert session.profile(repeat=2)[0].total_seconds.shape == (2,)
    assert pc.board.leftovers() == []


def test_old_programs_make_room(pc: BoardServer, device_host_bundle: Bundle) -> None:
    """Programs of all bundles that were ever tried fill up the board, or a file of the user's goes away with them."""
    cache = pc.board.home / ".cache" / "bnn-deploy"
    for index in range(6):
        (cache / f"{index:032x}").mkdir(parents=True)
    (cache / "notes").write_text("mine")
    get_device(pc.address).run(device_host_bundle, toy_input())
    assert len(list(cache.glob("?" * 32))) == 4 and len(programs(pc)) == 1
    assert (cache / "notes").read_text() == "mine"
