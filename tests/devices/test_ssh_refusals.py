"""Machines that ssh cannot reach, or that cannot run a bundle: one sentence each with what to do, and nothing left behind."""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result

from bnn_deploy.bundle.bundle import Bundle
from bnn_deploy.devices import ssh_connection
from bnn_deploy.devices.registry import get_device
from bnn_deploy.errors import BnnDeployError, DeviceError, ToolError
from tests.boards.board_server import BoardServer, SshClient
from tests.boards.emulated_board import EmulatedBoard, needs_board
from tests.runtime.toy_network import toy_input

Invoke = Callable[..., Result]


def refusal(address: str, bundle: Bundle) -> str:
    """The one sentence of the error that opening a session ends in."""
    with pytest.raises(BnnDeployError) as caught:
        get_device(address).open(bundle)
    sentence = str(caught.value)
    assert sentence.isprintable() and sentence.endswith((".", ".`")) and address in sentence
    return sentence


def test_unknown_host_key(pc: BoardServer, tmp_path: Path, device_host_bundle: Bundle) -> None:
    """A host that nobody has looked at is trusted, or the user does not learn how to look at it."""
    known_hosts = tmp_path / "client" / "known_hosts"
    known_hosts.write_text("")
    sentence = refusal(pc.address, device_host_bundle)
    assert "not in your known_hosts" in sentence and f"`ssh -p {pc.port} user@127.0.0.1`" in sentence
    assert known_hosts.read_text() == "" and pc.board.leftovers() == []


def test_changed_host_key_in_the_command_line(
    pc: BoardServer, tmp_path: Path, invoke: Invoke, device_host_bundle: Bundle
) -> None:
    """A machine that pretends to be the board gets the bundle and the images; or an output file stays behind."""
    pc.stop()
    pc.change_host_key()
    pc.start()
    (tmp_path / "in").mkdir()
    np.save(tmp_path / "in" / "x.npy", toy_input())
    output = tmp_path / "in" / "y.npy"
    arguments = ("--input", tmp_path / "in" / "x.npy", "--output", output, "--device", pc.address)
    result = invoke("run", device_host_bundle.path, *arguments)
    assert result.exit_code == 2 and "is another machine" in result.stderr
    assert f"ssh-keygen -R '[127.0.0.1]:{pc.port}'" in result.stderr
    assert not output.exists() and pc.board.leftovers() == []


def test_other_refusals(pc: BoardServer, tmp_path: Path, device_host_bundle: Bundle) -> None:
    """Common trouble with ssh ends in ssh's own words, without what to do."""
    (pc.folder / "authorized_keys").write_text("")
    assert f"ssh-copy-id -p {pc.port} user@127.0.0.1" in refusal(pc.address, device_host_bundle)
    pc.stop()
    assert "no ssh server listens" in refusal(pc.address, device_host_bundle)
    assert "the host name no-such-board.invalid is unknown" in refusal(
        "ssh://no-such-board.invalid", device_host_bundle
    )


def test_dead_host(
    tmp_path: Path, device_host_bundle: Bundle, pc: BoardServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A board that is stuck stalls the command for good."""
    monkeypatch.setitem(ssh_connection.OPTIONS, "ConnectTimeout", "1")
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        start = time.monotonic()
        sentence = refusal(f"ssh://user@127.0.0.1:{silent.getsockname()[1]}", device_host_bundle)
    assert "does not answer" in sentence and time.monotonic() - start < 20


def test_no_client(device_host_bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without OpenSSH the user sees a traceback instead of what to install."""
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ToolError, match="apt-get install openssh-client"):
        get_device("ssh://user@127.0.0.1").open(device_host_bundle)


def test_account_without_a_shell(pc: BoardServer, device_host_bundle: Bundle) -> None:
    """An account that may not run commands looks like a board that is gone."""
    (pc.folder / "session").write_text("#!/bin/sh\necho 'This account is currently not available.'\nexit 1\n")
    assert "This account is currently not available" in refusal(pc.address, device_host_bundle)


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("exec yes", "longer than 65536 bytes"),
        ("echo bnn-deploy:begin; exec yes", "longer than 65536 bytes"),
        ("printf 'bnn-deploy:begin\\nsystem=\\033[2JLinux\\nmachine=x86_64\\nplace=home\\n'", r"runs ?[2JLinux"),
        ("printf 'bnn-deploy:begin\\nplace=/etc\\nrefused=\\033[2J\\n'", "docs/devices.md"),
    ],
)
def test_machines_that_answer_nonsense(pc: BoardServer, device_host_bundle: Bundle, script: str, said: str) -> None:
    """A machine that is no board fills this one's memory, writes into the user's terminal, or is sent where it wants."""
    (pc.folder / "session").write_text(f"#!/bin/sh\n{script}\n")
    assert said in refusal(pc.address, device_host_bundle)


@pytest.mark.board
def test_arm_board_refuses_other_bundles(
    pi: BoardServer, device_host_bundle: Bundle, device_arm_bundle: Bundle
) -> None:
    """A bundle for another processor is copied and then crashes; or it needs instructions that the board has not."""
    sentence = refusal(pi.address, device_host_bundle)
    assert "the machine is arm64" in sentence and "is for x86_64" in sentence and "`--target arm64`" in sentence
    (pi.board.root / "proc" / "cpuinfo").write_text("processor\t: 0\nFeatures\t: fp evtstrm\n")
    assert "lacks the instructions asimd" in refusal(pi.address, device_arm_bundle)
    assert not pi.board.find("runner*") and pi.board.leftovers() == []


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("Linux armv7l", "32-bit processor armv7l"),
        ("Linux riscv64", "unknown processor riscv64"),
        ("Darwin arm64", "runs Darwin"),
        ("Linux x86_64", "the machine is x86_64"),
    ],
)
def test_other_machines(pc: BoardServer, device_arm_bundle: Bundle, answer: str, said: str) -> None:
    """A 32-bit system, or a Mac, gets megabytes that it cannot run."""
    system, machine = answer.split()
    pc.board.write_program("bin/uname", f'[ "$1" = -s ] && echo {system} || echo {machine}')
    assert said in refusal(pc.address, device_arm_bundle)
    assert not pc.board.find("runner*") and pc.board.leftovers() == []


def test_a_32_bit_kernel_says_so_itself(tmp_path: Path, device_host_bundle: Bundle) -> None:
    """What a real 32-bit kernel answers is not understood: Linux gives the same answer to a process of that personality."""
    needs_board(emulated=False)
    board = EmulatedBoard(tmp_path / "board", "pc")
    with BoardServer(board, tmp_path / "server") as server:
        script = (server.folder / "session").read_text().replace("exec env", "exec setarch i686 env")
        (server.folder / "session").write_text(script)
        with SshClient(tmp_path / "client", {"pc.local": server}).environment():
            assert "32-bit processor i686" in refusal(server.address, device_host_bundle)


def test_private_folders_go_away(
    pc: BoardServer, device_host_bundle: Bundle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The connection's folder or process outlives its session, or a user's long TMPDIR is too long for its socket."""
    long = tmp_path / ("long" * 20)
    long.mkdir()
    for folder in (long, tmp_path):
        monkeypatch.setattr(tempfile, "tempdir", str(folder))
        get_device(pc.address).run(device_host_bundle, toy_input())
        assert not list(folder.glob("bnn-deploy*"))
    assert pc.sessions() == []
    listed = subprocess.run(["ps", "-eo", "ppid,args"], capture_output=True, text=True, check=True).stdout
    assert not [line for line in listed.splitlines() if f"-p {pc.port}" in line and line.split()[0] == str(os.getpid())]
    with pytest.raises(DeviceError):
        get_device("ssh://user@127.0.0.1:1").open(device_host_bundle)
    assert not list(tmp_path.glob("bnn-deploy*"))
