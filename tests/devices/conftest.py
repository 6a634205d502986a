"""The toy bundles of the runtime's tests, for devices, and boards that ssh reaches."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from bnn_deploy.bundle.bundle import Bundle
from tests.boards.board_server import BoardServer, SshClient
from tests.boards.emulated_board import EmulatedBoard, needs_board
from tests.runtime.toy_network import ARM, HOST, toy_bundle


@pytest.fixture(scope="session")
def device_host_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return toy_bundle(tmp_path_factory.mktemp("host"), HOST)


@pytest.fixture(scope="session")
def device_arm_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return toy_bundle(tmp_path_factory.mktemp("arm"), ARM)


def known(server: BoardServer, folder: Path, name: str) -> AbstractContextManager[object]:
    """The ssh client in PATH knows the server, and a name for it."""
    return SshClient(folder / "client", {name: server}).environment()


@pytest.fixture
def pi(tmp_path: Path) -> Iterator[BoardServer]:
    """An emulated Raspberry Pi 4, and an ssh client in PATH that knows it."""
    needs_board()
    board = EmulatedBoard(tmp_path / "board", "raspberry_pi_4")
    with BoardServer(board, tmp_path / "server") as server, known(server, tmp_path, "raspberrypi.local"):
        yield server


@pytest.fixture
def pc(tmp_path: Path) -> Iterator[BoardServer]:
    """A home folder of this machine behind an ssh server, and an ssh client in PATH that knows it: fast, and GNU's tools."""
    needs_board(emulated=False)
    board = EmulatedBoard(tmp_path / "board", "pc")
    with BoardServer(board, tmp_path / "server") as server, known(server, tmp_path, "pc.local"):
        yield server
