"""Connections that drop, boards that stop, and copies that are cut off: what was begun is finished, or ends in one sentence."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bnn_deploy.bundle.bundle import Bundle
from bnn_deploy.devices import ssh_board, ssh_connection
from bnn_deploy.devices.registry import get_device
from bnn_deploy.errors import DeviceError, ToolError
from tests.boards.board_server import BoardServer
from tests.runtime.toy_network import reference, toy_input

MEGABYTES = 96
WAIT_SECONDS = 20.0


@pytest.fixture
def large_bundle(device_host_bundle: Bundle, tmp_path: Path) -> Bundle:
    """The toy bundle with a runner of 96 MB, whose end means nothing."""
    folder = tmp_path / "large"
    folder.mkdir()
    padding = np.random.default_rng(0).bytes(MEGABYTES * 10**6)
    (folder / "runner").write_bytes(device_host_bundle.runner.read_bytes() + padding)
    (folder / "runner").chmod(0o755)
    return replace(device_host_bundle, path=folder)


@contextmanager
def meanwhile(happens: Callable[[], bool], action: Callable[[], object]) -> Iterator[list[float]]:
    """Do something, once, as soon as something has happened; yields the moments when that was."""
    moments: list[float] = []

    def watch() -> None:
        end = time.monotonic() + WAIT_SECONDS
        while time.monotonic() < end:
            if happens():
                moments.append(time.monotonic())
                action()
                return
            time.sleep(0.002)

    thread = threading.Thread(target=watch)
    thread.start()
    yield moments
    thread.join()
    assert moments, "it never happened"


def halfway(messages: list[str], action: Callable[[], object]) -> Callable[[str], None]:
    """A progress report that keeps the messages, and does something, once, when half of the large bundle has gone out."""
    todo = [action]

    def report(message: str) -> None:
        messages.append(message)
        if todo and megabytes([message])[0] > MEGABYTES / 2:
            todo.pop()()

    return report


def runners(server: BoardServer) -> list[int]:
    """Processes of the bundle's program on the board."""
    return [process for process in server.sessions() if Path(f"/proc/{process}/comm").read_text().strip() == "runner"]


def running(server: BoardServer) -> bool:
    try:
        return bool(runners(server))
    except OSError:
        return False  # one of the processes ended meanwhile


def until(condition: Callable[[], bool]) -> bool:
    """Does it come true within a while?"""
    end = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return False


def megabytes(messages: list[str]) -> list[float]:
    return [float(message.split("copied ")[1].split()[0]) for message in messages]


def test_copy_goes_on_after_a_dropped_connection(pc: BoardServer, large_bundle: Bundle) -> None:
    """After a dropped connection the copy begins anew, or a damaged one is run."""
    messages: list[str] = []
    dropped: list[int] = []
    report = halfway(messages, lambda: dropped.append(pc.drop_connections()))
    session = get_device(pc.address).open(large_bundle, progress=report)
    first = next(index for index, sent in enumerate(megabytes(messages)) if sent > MEGABYTES / 2)
    assert dropped[0] > 0 and min(megabytes(messages)[first:]) > MEGABYTES / 4, "it began anew"
    with session:
        np.testing.assert_array_equal(session.run(toy_input()), reference(toy_input()))
    assert pc.board.leftovers() == []


def test_copy_goes_on_in_the_next_command(
    pc: BoardServer, large_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A board that was away for long costs the whole copy again."""
    monkeypatch.setattr(ssh_board, "PAUSES", (0.1, 0.1))
    with pytest.raises(DeviceError) as caught:
        get_device(pc.address).open(large_bundle, progress=halfway([], pc.stop))
    assert "2 attempts did not bring it back" in str(caught.value) and "\n" not in str(caught.value)
    pc.start()
    assert until(lambda: not pc.sessions())
    messages: list[str] = []
    with get_device(pc.address).open(large_bundle, progress=messages.append) as session:
        np.testing.assert_array_equal(session.run(toy_input()), reference(toy_input()))
    assert megabytes(messages)[0] > 10
    assert pc.board.leftovers() == []


@pytest.mark.board
def test_copy_goes_on_on_a_board(pi: BoardServer, device_arm_bundle: Bundle) -> None:
    """Busybox's tools do not go on where an earlier copy stopped."""
    content = device_arm_bundle.runner.read_bytes()
    with get_device(pi.address).open(device_arm_bundle):
        (program,) = pi.board.find("runner")
    program.rename(program.with_suffix(".part"))
    os.truncate(program.with_suffix(".part"), 200_000)
    messages: list[str] = []
    with get_device(pi.address).open(device_arm_bundle, progress=messages.append) as session:
        np.testing.assert_array_equal(session.run(toy_input()), reference(toy_input()))
    assert len(messages) == -(-(len(content) - 3 * 65536) // 65536) and program.read_bytes() == content
    assert pi.board.leftovers() == []


def test_altered_copies_are_made_anew(pc: BoardServer, device_host_bundle: Bundle) -> None:
    """A program that a memory card has damaged, or a part of another file, is run."""
    get_device(pc.address).run(device_host_bundle, toy_input())
    (program,) = pc.board.find("runner")
    content = program.read_bytes()
    program.write_bytes(content[:-1])
    get_device(pc.address).run(device_host_bundle, toy_input())
    assert program.read_bytes() == content
    program.unlink()
    program.with_suffix(".part").write_bytes(b"x" * 100_000)
    get_device(pc.address).run(device_host_bundle, toy_input())
    assert program.read_bytes() == content and pc.board.leftovers() == []


def test_two_commands_copy_at_once(pc: BoardServer, large_bundle: Bundle) -> None:
    """Two commands for the same new bundle, such as two profiles in two terminals, spoil each other's copy."""

    def run() -> np.ndarray:
        return get_device(pc.address).run(large_bundle, toy_input())

    with ThreadPoolExecutor(2) as executor:
        for result in [executor.submit(run) for _ in range(2)]:
            np.testing.assert_array_equal(result.result(), reference(toy_input()))
    (program,) = pc.board.find("runner")
    assert program.read_bytes() == large_bundle.runner.read_bytes() and pc.board.leftovers() == []


def test_run_is_repeated_after_a_dropped_connection(pc: BoardServer, device_host_bundle: Bundle) -> None:
    """A connection that drops while a batch runs loses the batch, or leaves its program running on the board."""
    with get_device(pc.address).open(device_host_bundle) as session:
        with meanwhile(lambda: running(pc), pc.drop_connections):
            profile = session.profile(repeat=30_000)[0]
        assert profile.total_seconds.shape == (30_000,)
        np.testing.assert_array_equal(session.run(toy_input()), reference(toy_input()))
    assert until(lambda: not list((pc.board.root / "tmp").iterdir()))
    assert not subprocess.run(["pgrep", "-f", str(pc.board.root)], capture_output=True).stdout


def test_a_board_that_stops_answering(
    pc: BoardServer, device_host_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A board whose power is cut in the middle stalls the command beyond --timeout."""
    for name in ("ConnectTimeout", "ServerAliveInterval", "ServerAliveCountMax"):
        monkeypatch.setitem(ssh_connection.OPTIONS, name, "1")
    start = time.monotonic()
    with (
        get_device(pc.address, timeout=8).open(device_host_bundle) as session,
        meanwhile(lambda: running(pc), pc.freeze),
        pytest.raises(DeviceError) as caught,
    ):
        session.profile(repeat=1_000_000)
    assert "the connection was lost" in str(caught.value) and time.monotonic() - start < 25


def test_time_out_stops_the_program(pc: BoardServer, device_host_bundle: Bundle) -> None:
    """After --timeout the program goes on and keeps the board busy, or its folder stays."""
    with get_device(pc.address, timeout=2).open(device_host_bundle) as session:
        with pytest.raises(DeviceError, match="did not finish in 2 s and was stopped; give it more with --timeout"):
            session.profile(repeat=1_000_000)
        assert until(lambda: not running(pc) and pc.board.leftovers() == [])
        np.testing.assert_array_equal(session.run(toy_input()), reference(toy_input()))


def test_killed_for_want_of_memory(pc: BoardServer, device_host_bundle: Bundle) -> None:
    """What Linux does to a program when memory runs out, SIGKILL, is reported as nothing but a number."""

    def kill() -> None:
        for process in runners(pc):
            os.kill(process, signal.SIGKILL)

    with (
        get_device(pc.address).open(device_host_bundle) as session,
        meanwhile(lambda: running(pc), kill),
        pytest.raises(ToolError, match=r"The runner of .* was killed, most likely because the board's memory ran out"),
    ):
        session.profile(repeat=1_000_000)
    assert pc.board.leftovers() == []
