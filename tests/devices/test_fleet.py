"""``tracker://``: three real RPC servers behind TVM's real tracker, and what happens to work when boards go away."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result

from bnn_deploy.bundle.bundle import Bundle
from bnn_deploy.devices.registry import get_device
from bnn_deploy.errors import BundleError, DeviceError
from bnn_deploy.validation.validate import validate
from tests.devices.rpc_servers import Fleet, free_port, needs_rpc, own_children
from tests.devices.tapped import assert_taps_work
from tests.runtime.toy_network import reference, toy_input
from tests.runtime.toy_taps import TOTAL_BYTES, toy_taps

BOARDS = 3


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    needs_rpc()
    fleet = Fleet(tmp_path_factory.mktemp("fleet"), BOARDS)
    try:
        yield fleet
    finally:
        fleet.stop()


@pytest.fixture
def fleet(processes: Fleet) -> Fleet:
    """Three boards of a key, all free."""
    processes.mend()
    return processes


def test_boards_share_the_work(fleet: Fleet, device_host_bundle: Bundle) -> None:
    """Batches are lost, doubled or out of order, one board does everything, or the caller's iterator runs ahead in memory."""
    children, caller = own_children(), threading.get_ident()
    read, given = 0, 0

    def batches() -> Iterator[np.ndarray]:
        nonlocal read
        for seed in range(200):
            assert threading.get_ident() == caller and read - given <= 4 * BOARDS
            read += 1
            yield toy_input(8, seed)

    with get_device(fleet.address).open(device_host_bundle, 2) as session:
        for result in session.run_many(batches()):
            np.testing.assert_array_equal(result, reference(toy_input(8, given)))
            given += 1
        boards = session.boards()
        np.testing.assert_array_equal(session.run(toy_input()), reference(toy_input()))
    assert given == read == 200
    assert sum(board.images for board in boards) == 1600
    assert {board.board for board in boards} == set(fleet.boards)
    assert all(board.images > 0 and board.seconds > 0 and not board.lost for board in boards)
    assert own_children() == children


def test_taps_come_from_one_board(fleet: Fleet, device_host_bundle: Bundle) -> None:
    """Values of a run with taps come from several boards, or the run fails with the first board that is lost."""
    with get_device(fleet.address).open(device_host_bundle) as session:
        for seed in range(4):
            session.run_tapped(toy_input(6, seed), toy_taps(), TOTAL_BYTES)
        used = [board for board in session.boards() if board.images]
        assert [board.images for board in used] == [24]
        fleet.break_board(used[0].board)
        assert_taps_work(session)
        assert [bool(board.lost) for board in session.boards()] == [
            board.board == used[0].board for board in session.boards()
        ]


def test_every_board_is_profiled(fleet: Fleet, device_host_bundle: Bundle) -> None:
    """A profile shows one board for all, or none where one of them died."""
    device = get_device(fleet.address)
    assert list(device.system_states()) == sorted(fleet.boards)
    with device.open(device_host_bundle) as session:
        profiles = session.profile(repeat=4, warmup=1)
        assert [profile.board for profile in profiles] == sorted(fleet.boards)
        assert all(profile.step_seconds.shape == (4, len(device_host_bundle.steps)) for profile in profiles)
        victim = profiles[1].board
        fleet.break_board(victim)
        profiles = session.profile(repeat=2, warmup=0)
        assert sorted([victim, *(profile.board for profile in profiles)]) == sorted(fleet.boards)
        assert [board.board for board in session.boards() if board.lost] == [victim]


def test_a_board_dies_in_the_middle_of_a_validation(
    fleet: Fleet, tiny_onnx: Path, tiny_bundle: Path, invoke: Callable[..., Result]
) -> None:
    """The death of one board among three changes a validation, loses images, counts some twice, or goes unnoticed."""
    bundle = Bundle.open(tiny_bundle)
    victim, *others = sorted(fleet.boards)
    thaw = threading.Timer(2, lambda: [fleet.boards[name].thaw() for name in others])

    def kill_once(message: str) -> None:
        """With the first images, while twelve of the sixteen batches were given out: the dead board must be asked again."""
        if message.startswith("compared") and fleet.boards[victim].alive:
            fleet.break_board(victim)
            for name in others:
                fleet.boards[name].freeze()
            thaw.start()

    device = get_device(fleet.address)
    report = validate(tiny_onnx, bundle, samples=1000, device=device, levels=(3,), progress=kill_once)
    thaw.join()
    local = validate(tiny_onnx, bundle, samples=1000, levels=(3,))
    assert report.model is not None and report.model.samples == 1000
    ours, theirs = report.to_dict(), local.to_dict()
    boards = {board["board"]: board for board in ours.pop("boards")}
    assert theirs.pop("boards") == [] and ours.pop("device") == fleet.address and theirs.pop("device") == "local"
    assert ours == theirs
    assert set(boards) == set(fleet.boards)
    assert victim in boards[victim]["lost"] and not any(boards[name]["lost"] for name in others)
    # The last batch is filled up to whole batches of the bundle.
    assert sum(board["images"] for board in boards.values()) == 1000

    result = invoke(
        "validate", tiny_onnx, "--bundle", tiny_bundle, "--device", fleet.address, "--samples", 64, "--level", 3
    )
    assert result.exit_code == 0, result.stderr
    assert all(name in result.stdout for name in others)


def test_a_frozen_boards_work_goes_elsewhere(fleet: Fleet, device_host_bundle: Bundle) -> None:
    """A board that hangs keeps everybody waiting for ever."""
    victim = sorted(fleet.boards)[0]
    with get_device(fleet.address, 3).open(device_host_bundle) as session:
        for number, result in enumerate(session.run_many(toy_input(8, seed) for seed in range(60))):
            np.testing.assert_array_equal(result, reference(toy_input(8, number)))
            if number == 5:
                fleet.break_board(victim, freeze=True)
        lost = {board.board: board.lost for board in session.boards() if board.lost}
        assert number == 59 and list(lost) == [victim] and "did not answer within 3 s" in lost[victim]
        assert sum(board.images for board in session.boards()) == 60 * 8


def test_no_board_left(fleet: Fleet, device_host_bundle: Bundle) -> None:
    """When all boards are gone the command hangs, or claims to be complete."""
    with get_device(fleet.address).open(device_host_bundle) as session:
        results = session.run_many(toy_input(8, seed) for seed in range(100))
        next(results)
        for name in fleet.boards:
            fleet.break_board(name)
        with pytest.raises(DeviceError, match="None of the 3 boards is left") as caught:
            list(results)
        assert all(name in str(caught.value) for name in fleet.boards)
        with pytest.raises(DeviceError, match="None of the 3 boards is left"):
            session.profile()


def test_a_stale_entry_is_left_out(fleet: Fleet, device_host_bundle: Bundle, invoke: Callable[..., Result]) -> None:
    """A board that is switched off, which the tracker does not notice, keeps the others from being used, or from a profile."""
    victim = sorted(fleet.boards)[2]
    fleet.break_board(victim, freeze=True)
    options = ("--device", fleet.address, "--timeout", 3, "--format", "json")
    result = invoke("profile", device_host_bundle.path, *options)
    assert result.exit_code == 0 and f"Without {victim}" in result.stderr
    report = json.loads(result.stdout)
    assert [board["board"] for board in report["lost"]] == [victim]
    assert sorted([victim, *(board["board"] for board in report["boards"])]) == sorted(fleet.boards)
    # The tracker gave the entry away, so nobody meets that board again.
    with get_device(fleet.address, 3).open(device_host_bundle) as session:
        np.testing.assert_array_equal(session.run(toy_input()), reference(toy_input()))
        assert len(session.boards()) == 2 and not any(board.lost for board in session.boards())


def test_errors_that_are_no_boards_fault_stop_everything(fleet: Fleet, device_host_bundle: Bundle) -> None:
    """A failing kernel, or the caller's own error, is taken for dead boards or hangs."""
    bad = toy_input()
    bad[0, 0] = 666

    def broken() -> Iterator[np.ndarray]:
        yield toy_input()
        raise KeyError("the caller's")

    with get_device(fleet.address).open(device_host_bundle) as session:
        with pytest.raises(BundleError, match=r"stem\.check"):
            list(session.run_many([toy_input(), bad, toy_input()]))
        with pytest.raises(KeyError, match="the caller's"):
            list(session.run_many(broken()))
        results = session.run_many(toy_input() for _ in range(50))
        next(results)
        results.close()
        np.testing.assert_array_equal(session.run(toy_input()), reference(toy_input()))
        assert not any(board.lost for board in session.boards())


def test_a_bundle_for_no_board(fleet: Fleet, device_arm_bundle: Bundle) -> None:
    """A fleet of another architecture says so once for each board, or not at all."""
    with pytest.raises(DeviceError, match="is no arm64 machine") as caught:
        get_device(fleet.address).open(device_arm_bundle)
    assert str(caught.value).count("is no arm64 machine") == 1
    assert all(name in str(caught.value) for name in fleet.boards)


def test_taken_boards_are_waited_for(fleet: Fleet, device_host_bundle: Bundle) -> None:
    """A second command takes somebody's boards away, fails at once, or waits without a word."""
    messages: list[str] = []
    with get_device(fleet.address).open(device_host_bundle) as first:
        with pytest.raises(DeviceError, match="all stayed taken for 2 s"):
            get_device(fleet.address, 2).open(device_host_bundle, 1, messages.append)
        assert any("waiting for one of 3 boards" in message for message in messages)
        np.testing.assert_array_equal(first.run(toy_input()), reference(toy_input()))
        threading.Timer(4, first.close).start()
        start = time.monotonic()
        with get_device(fleet.address, 60).open(device_host_bundle) as second:
            assert time.monotonic() - start > 2
            np.testing.assert_array_equal(second.run(toy_input()), reference(toy_input()))


def test_wrong_trackers_and_keys(fleet: Fleet, device_host_bundle: Bundle, invoke: Callable[..., Result]) -> None:
    """A typing error in the address hangs, or ends in a traceback; the keys that exist are not told."""
    tracker = fleet.tracker.place
    with pytest.raises(DeviceError, match=rf"no boards of the key 'shelv', its keys are: {fleet.key};"):
        get_device(f"tracker://{tracker}/shelv").open(device_host_bundle)
    board = next(iter(fleet.boards))
    with pytest.raises(DeviceError, match=f"What listens at {board} is no TVM RPC tracker"):
        get_device(f"tracker://{board}/{fleet.key}").open(device_host_bundle)
    with pytest.raises(DeviceError, match=f"{tracker}: "):
        get_device(f"rpc://{tracker}", 2).open(device_host_bundle)
    with pytest.raises(DeviceError, match="started with a key; reach it through its tracker"):
        get_device(f"rpc://{board}").open(device_host_bundle)
    nobody = f"tracker://127.0.0.1:{free_port()}/{fleet.key}"
    result = invoke("profile", device_host_bundle.path, "--device", nobody)
    assert result.exit_code == 2 and "rpc_tracker --host 127.0.0.1" in result.stderr and result.stdout == ""
