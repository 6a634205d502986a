"""The examples, run as users run them; `make demo` and .ci/run run the two that train a convolutional network."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bnn_deploy.devices.qemu import find_qemu
from bnn_deploy.errors import ToolError
from tests.boards.board_server import BoardServer, SshClient
from tests.boards.emulated_board import EmulatedBoard, needs_board
from tests.docs.documents import newcomers_environment
from tests.source_tree import ROOT

EXAMPLES = ROOT / "examples"


def run(folder: Path, *command: object) -> str:
    """What an example prints; it ends with exit status 0."""
    done = subprocess.run(
        [str(word) for word in command],
        cwd=folder,
        env=newcomers_environment(folder / "programs"),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.skipif(sys.version_info < (3, 11), reason="QONNX wants an older onnx than bnn-deploy on Python 3.10")
def test_qonnx_import(tmp_path: Path) -> None:
    """Breaks: who comes from Brevitas follows the example and gets fewer layers on bits, or other classes."""
    printed = run(tmp_path, sys.executable, EXAMPLES / "qonnx_import.py", "files")
    assert "2 of 2 layers binary" in printed
    assert "360 of 360" in printed


@pytest.mark.qemu
def test_c_on_arm64(tmp_path: Path) -> None:
    """Breaks: the C interface needs more than one compiler call for arm64, or computes other bits there than here."""
    try:
        find_qemu()
    except ToolError as error:
        pytest.skip(str(error))
    assert "the same bits" in run(tmp_path, "bash", EXAMPLES / "c_on_arm64.sh", "files")


@pytest.fixture
def raspberry_pi(tmp_path: Path) -> Iterator[BoardServer]:
    """An emulated board behind a real OpenSSH server, and an ssh client in PATH that knows it."""
    needs_board()
    board = EmulatedBoard(tmp_path / "board", "raspberry_pi_4")
    with (
        BoardServer(board, tmp_path / "server") as server,
        SshClient(tmp_path / "client", {"raspberrypi.local": server}).environment(),
    ):
        yield server


@pytest.mark.board
def test_profile_over_ssh(raspberry_pi: BoardServer, tiny_onnx: Path, tmp_path: Path) -> None:
    """Breaks: the example that goes to a board leaves something out, or stops half-way."""
    device = f"ssh://{raspberry_pi.board.user}@raspberrypi.local"
    run(tmp_path, "bash", EXAMPLES / "profile_over_ssh.sh", device, tiny_onnx, "files")
    assert {"first.html", "first.json", "second.json"} <= set(os.listdir(tmp_path / "files"))
