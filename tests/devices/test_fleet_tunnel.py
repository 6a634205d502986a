"""The tunnels of docs/fleets.md through a real OpenSSH server: to a board's RPC server, and from a board to the tracker."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from bnn_deploy.bundle.bundle import Bundle
from bnn_deploy.devices.registry import get_device
from bnn_deploy.errors import DeviceError
from tests.boards.board_server import BoardServer, SshClient
from tests.boards.emulated_board import EmulatedBoard, needs_board
from tests.devices.rpc_servers import RpcProcess, free_port, needs_rpc
from tests.runtime.toy_network import reference, toy_input


@contextmanager
def tunnel(host: str, port: int, *options: str) -> Iterator[None]:
    """``ssh -N`` with options; ``port`` of 127.0.0.2 is where it listens."""
    process = subprocess.Popen(
        ["ssh", "-N", "-o", "ExitOnForwardFailure=yes", *options, host], stdin=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 20
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.2", port)) == 0:
                    break
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        yield
    finally:
        process.kill()
        process.wait()


@pytest.mark.board
def test_documented_tunnels(tmp_path: Path, device_host_bundle: Bundle) -> None:
    """The way that the guide calls safe does not work, so people open their boards to the network."""
    needs_board(emulated=False)
    needs_rpc()
    array, remote = toy_input(6), free_port()
    tracker = RpcProcess(tmp_path / "tracker", "rpc_tracker")
    # Board and lab are one machine here: on 127.0.0.1 the board's server, on 127.0.0.2 the lab's end of the tunnel to it.
    options = ("--tracker", f"127.0.0.1:{remote}", "--key", "shelf", "--custom-addr", "127.0.0.2")
    try:
        tracker.wait()
        with (
            BoardServer(EmulatedBoard(tmp_path / "board", "pc"), tmp_path / "sshd") as server,
            SshClient(tmp_path / "client", {"board1": server}).environment(),
        ):
            board = RpcProcess(tmp_path / "server", "rpc_server", *options)
            there = ("-L", f"127.0.0.2:{board.port}:127.0.0.1:{board.port}")
            back = ("-R", f"{remote}:{tracker.place}")
            try:
                with tunnel("board1", board.port, *there, *back):
                    board.wait()
                    wait_for_board(f"tracker://{tracker.place}/shelf")
                    with get_device(f"tracker://{tracker.place}/shelf").open(device_host_bundle) as session:
                        np.testing.assert_array_equal(session.run(array), reference(array))
                        assert [use.board for use in session.boards()] == [f"127.0.0.2:{board.port}"]
                board.kill()
                board = RpcProcess(tmp_path / "server", "rpc_server")
                board.wait()
                there = ("-L", f"127.0.0.2:{board.port}:127.0.0.1:{board.port}")
                with tunnel("board1", board.port, *there):
                    device = get_device(f"rpc://127.0.0.2:{board.port}", 20)
                    np.testing.assert_array_equal(device.run(device_host_bundle, array), reference(array))
                    board.kill()
                    with pytest.raises(DeviceError, match="the connection was lost at once"):
                        device.open(device_host_bundle)
                board = RpcProcess(tmp_path / "server", "rpc_server")
                board.wait()
                there = ("-L", f"127.0.0.2:{board.port}:127.0.0.1:{board.port}")
                alive = ("-o", "ServerAliveInterval=1", "-o", "ServerAliveCountMax=2")
                device = get_device(f"rpc://127.0.0.2:{board.port}", 300)
                with tunnel("board1", board.port, *alive, *there), device.open(device_host_bundle) as session:
                    np.testing.assert_array_equal(session.run(array), reference(array))
                    # What a board looks like whose power was pulled: it does not even close its connections.
                    board.freeze()
                    server.freeze()
                    start = time.monotonic()
                    with pytest.raises(DeviceError, match="went away"):
                        session.run(array)
                    assert time.monotonic() - start < 60
            finally:
                board.kill()
    finally:
        tracker.kill()


def wait_for_board(address: str) -> None:
    """A server that finds no tracker tries again every five seconds."""
    from bnn_deploy.devices.rpc_address import parse_tracker_address
    from bnn_deploy.devices.tracker_client import TrackerClient

    deadline = time.monotonic() + 30
    parsed = parse_tracker_address(address)
    while True:
        with TrackerClient(parsed) as client:
            if parsed.key in client.boards():
                return
        assert time.monotonic() < deadline
        time.sleep(0.1)
