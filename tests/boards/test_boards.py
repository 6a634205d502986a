"""The boards of the other tests are what they say they are."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.boards.board_server import BoardServer, SshClient
from tests.boards.emulated_board import EmulatedBoard, needs_board


@pytest.mark.board
def test_ssh_and_scp_lead_to_the_board(tmp_path: Path) -> None:
    """Tests that believe to be on an arm64 board run on this machine, or in its real home folder."""
    needs_board()
    board = EmulatedBoard(tmp_path / "board", "raspberry_pi_3")
    (tmp_path / "note").write_text("from here\n")
    with BoardServer(board, tmp_path / "server") as server:
        client = SshClient(tmp_path / "client", {"raspberrypi.local": server})
        with client.environment() as environment:
            script = "uname -m; whoami; pwd; cat /proc/device-tree/model; vcgencmd get_throttled; cat; ls /usr/lib"
            result = subprocess.run(
                ["ssh", "pi@raspberrypi.local", script],
                input="typed\n",
                capture_output=True,
                text=True,
                env=environment,
            )
            lines = result.stdout.replace("\0", "\n").splitlines()
            assert lines[:2] == ["aarch64", "pi"], result.stderr
            assert lines[2:] == ["/home/pi", "Raspberry Pi 3 Model B Plus Rev 1.3", "throttled=0x50005", "typed"]
            subprocess.run(["scp", "-q", tmp_path / "note", "pi@raspberrypi.local:copied"], check=True, env=environment)
            subprocess.run(["ssh", "pi@127.0.0.1", "-p", str(server.port), "cat copied"], check=True, env=environment)
    assert (board.home / "copied").read_text() == "from here\n"
