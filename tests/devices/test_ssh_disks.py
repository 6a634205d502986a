"""Boards whose disks are full, read-only or not for programs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bnn_deploy.bundle.bundle import Bundle
from bnn_deploy.devices.registry import get_device
from bnn_deploy.errors import DeviceError
from tests.boards.board_server import BoardServer
from tests.boards.small_disk import small_disk
from tests.runtime.toy_network import reference, toy_input


def set_environment(server: BoardServer, environment: dict[str, str]) -> None:
    """Variables of the account, in sessions from now on; an empty value takes one away."""
    (server.folder / "session").write_text(server.board.session_script(environment))


@pytest.mark.board
def test_full_disk(pi: BoardServer, device_arm_bundle: Bundle) -> None:
    """A full memory card ends in a damaged program, in a half of one that keeps it full, or in no advice."""
    with small_disk(pi.board.home / ".cache", "size=256k"):
        with pytest.raises(DeviceError, match=r"No space left on device\); make room there"):
            get_device(pi.address).open(device_arm_bundle)
        assert pi.board.leftovers() == [] and not pi.board.find("runner*")


def test_full_disk_with_gnu_tools_and_for_the_input(pc: BoardServer, device_host_bundle: Bundle) -> None:
    """As above for coreutils; and a full /tmp, where inputs go, is taken for a failure of the network."""
    with small_disk(pc.board.home / ".cache", "size=256k"):
        with pytest.raises(DeviceError, match=r"No space left on device\); make room there"):
            get_device(pc.address).open(device_host_bundle)
        assert pc.board.leftovers() == []
    with get_device(pc.address).open(device_host_bundle) as session, small_disk(pc.board.root / "tmp", "size=64k"):
        with pytest.raises(DeviceError, match=r"No space left on device.*make room there"):
            session.run(toy_input(2000))
        assert pc.board.leftovers() == []
        np.testing.assert_array_equal(session.run(toy_input()), reference(toy_input()))


def test_other_folders_when_home_will_not_do(pc: BoardServer, device_host_bundle: Bundle) -> None:
    """An account without a home, with a read-only one, or one on a disk that runs no programs, cannot be used."""
    temporary = pc.board.root / "tmp"

    def runs_from_temporary() -> None:
        np.testing.assert_array_equal(
            get_device(pc.address).run(device_host_bundle, toy_input()), reference(toy_input())
        )
        assert not list(pc.board.home.rglob("runner"))
        (program,) = temporary.rglob("runner")
        folder = program.parent.parent
        assert folder.parent == temporary and folder.stat().st_mode & 0o777 == 0o700
        program.unlink()

    for options in ("ro", "noexec"):
        with small_disk(pc.board.home, options):
            runs_from_temporary()
    set_environment(pc, {"HOME": ""})
    runs_from_temporary()
    elsewhere = pc.board.root / "elsewhere"
    set_environment(pc, {"XDG_CACHE_HOME": str(elsewhere)})
    get_device(pc.address).run(device_host_bundle, toy_input())
    assert [path.parent.parent for path in pc.board.find("runner")] == [elsewhere / "bnn-deploy"]


@pytest.mark.parametrize(("options", "said"), [("noexec", "without noexec"), ("ro", "Read-only file system")])
def test_no_folder_will_do(pc: BoardServer, device_host_bundle: Bundle, options: str, said: str) -> None:
    """A board that runs no programs from anywhere ends in "Permission denied" without what to do."""
    with small_disk(pc.board.root / "tmp", options), small_disk(pc.board.home, options):
        with pytest.raises(DeviceError) as caught:
            get_device(pc.address).open(device_host_bundle)
        assert said in str(caught.value) and "\n" not in str(caught.value)
        assert pc.board.leftovers() == []


def test_temporary_folder_of_somebody_else(pc: BoardServer, tmp_path: Path, device_host_bundle: Bundle) -> None:
    """On a shared board, a folder that another account has prepared in /tmp is used, and with it that account's program."""
    set_environment(pc, {"HOME": ""})
    get_device(pc.address).run(device_host_bundle, toy_input())
    (folder,) = (pc.board.root / "tmp").glob("bnn-deploy-*")
    trap = tmp_path / "trap"
    folder.rename(trap)
    folder.symlink_to(trap)
    with pytest.raises(DeviceError, match="belongs to someone else"):
        get_device(pc.address).open(device_host_bundle)
