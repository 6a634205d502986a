"""``bnn-deploy doctor --device``, end to end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from bnn_deploy.bundle.bundle import Bundle
from bnn_deploy.cli import command_line
from tests.boards.board_server import BoardServer, SshClient
from tests.boards.emulated_board import EmulatedBoard, needs_board
from tests.devices.rpc_servers import Fleet, needs_rpc


def doctor(*arguments: object) -> Result:
    return CliRunner().invoke(command_line, ["doctor", *map(str, arguments)])


def checks(result: Result) -> dict[str, dict[str, str]]:
    return {check["name"]: check for check in json.loads(result.stdout)["checks"]}


def test_this_machine_as_a_board(pc_bundle: Bundle) -> None:
    """The machine that runs the tests, and the bundle compiled for it, do not suit each other in doctor's eyes."""
    result = doctor("--device", "local", "--bundle", pc_bundle.path, "--format", "json")
    assert result.exit_code == 0, result.output
    found = checks(result)
    assert json.loads(result.stdout)["works"] is True
    assert found["bundle"]["status"] == "ok" and found["bundle"]["board"] == "local"
    assert found["memory"]["found"] != "unknown" and found["disk"]["found"] != "unknown"


@pytest.mark.board
def test_raspberry_pi_3_with_a_weak_power_supply(tmp_path: Path, board_bundle: Bundle) -> None:
    """What a board tells over ssh does not arrive in the table, or what the board suffers from is not found out."""
    needs_board()
    board = EmulatedBoard(tmp_path / "board", "raspberry_pi_3")
    with BoardServer(board, tmp_path / "server") as server:
        client = SshClient(tmp_path / "client", {"raspberrypi.local": server})
        with client.environment():
            result = doctor("--device", "ssh://pi@raspberrypi.local", "--bundle", board_bundle.path, "--format", "json")
            text = doctor("--device", "ssh://pi@raspberrypi.local")
    assert result.exit_code == 0, result.output
    found = checks(result)
    assert found["board"]["found"].startswith("Raspberry Pi 3 Model B Plus Rev 1.3")
    assert found["system"]["status"] == "ok" and "aarch64" in found["system"]["found"]
    assert found["target"]["found"] == "4 x Cortex-A53: compile with --target arm64 or rpi3"
    assert found["bundle"]["status"] == "warning" and "--target arm64 or rpi3" in found["bundle"]["advice"]
    assert found["governor"]["found"] == "ondemand"
    assert found["clock"]["found"].startswith("600 of 1400 MHz")
    assert found["throttling"]["status"] == "warning" and "power supply" in found["throttling"]["advice"]
    assert found["temperature"]["found"] == "49 °C (cpu-thermal)"
    assert text.exit_code == 0 and "throttling: " in text.stdout
    assert text.stdout.endswith("bnn-deploy can work on ssh://pi@raspberrypi.local.\n")


@pytest.mark.board
def test_jetson(tmp_path: Path) -> None:
    """A Jetson's power mode and GPU are not read over ssh."""
    needs_board()
    with BoardServer(EmulatedBoard(tmp_path / "board", "jetson_orin"), tmp_path / "server") as server:
        client = SshClient(tmp_path / "client", {"jetson.local": server})
        with client.environment():
            result = doctor("--device", "ssh://nvidia@jetson.local", "--format", "json")
    assert result.exit_code == 0, result.output
    found = checks(result)
    assert found["power mode"]["found"] == "15W" and found["power mode"]["status"] == "warning"
    assert found["Jetson Linux"]["found"] == "R36.4.3"
    assert found["GPU"]["found"] == "sm_87, CUDA 12.6: compile with --target orin"
    assert found["target"]["found"] == "6 x Cortex-A78AE: compile with --target arm64 or orin-cpu"


@pytest.mark.board
def test_emulated_arm64(board_bundle: Bundle) -> None:
    """doctor --device qemu fails, or hides that its times are an emulator's."""
    needs_board()
    result = doctor("--device", "qemu", "--bundle", board_bundle.path, "--format", "json")
    assert result.exit_code == 0, result.output
    assert "never a latency" in checks(result)["board"]["advice"]


def test_fleet(tmp_path: Path, pc_bundle: Bundle) -> None:
    """Only one board of a tracker's is looked at, or nobody can tell whose row is whose."""
    needs_rpc()
    fleet = Fleet(tmp_path, 2)
    try:
        fleet.mend()
        result = doctor("--device", fleet.address, "--bundle", pc_bundle.path, "--format", "json")
        places = list(fleet.boards)
    finally:
        fleet.stop()
    assert result.exit_code == 0, result.output
    rows = json.loads(result.stdout)["checks"]
    boards = {row["board"] for row in rows}
    assert len(boards) == 2 and all(any(place in board for board in boards) for place in places)
    assert [row["status"] for row in rows if row["name"] == "bundle"] == ["ok", "ok"]


def test_errors(tmp_path: Path) -> None:
    """A device that does not exist, or cannot be reached, ends in a table, a traceback or a wait without end."""
    for arguments, words in (
        (("--device", "gpu"), "no device 'gpu'"),
        (("--bundle", tmp_path), "--bundle says what is to run on a board, so it needs --device"),
        (("--device", "local", "--bundle", tmp_path / "missing"), "does not exist"),
        (("--device", "ssh://pi@127.0.0.1:1"), "127.0.0.1"),
    ):
        result = doctor(*arguments)
        assert result.exit_code == 2 and not result.stdout
        assert words in result.stderr and result.stderr.count("error: ") == 1


def test_a_board_that_cannot_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """A board with an error gets exit code 0, or is said to work."""
    from bnn_deploy.devices.local import LocalDevice
    from bnn_deploy.devices.system_state import SystemState

    old = SystemState(machine="armv7l", kernel="Linux 6.1.0", glibc="2.31", userland_bits=32)
    monkeypatch.setattr(LocalDevice, "system_states", lambda self: {self.name: old})
    result = doctor("--device", "local")
    assert result.exit_code == 2
    assert result.stdout.startswith("local:\n") and "cannot work on local" in result.stdout
    assert "system: Bundles are 64-bit" in result.stdout
