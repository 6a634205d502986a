"""docs/raspberry_pi.md and docs/jetson.md: a stranger who types their commands, in order, gets to the end."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from tests.boards.board_server import BoardServer, SshClient
from tests.boards.emulated_board import EmulatedBoard, needs_board
from tests.docs.documents import documented_commands, newcomers_environment, run_documented_here

ROOT = Path(__file__).parents[2]
GUIDES = {"raspberry_pi.md": ("raspberry_pi_4", "raspberrypi.local"), "jetson.md": ("jetson_orin", "jetson.local")}

# Those of an Orin Nano with JetPack 6.2.
POWER_MODES = "".join(
    f"< POWER_MODEL ID={number} NAME={name} >\n" for number, name in enumerate(("15W", "25W", "MAXN_SUPER"))
)
# It starts no programs, because emulated ones take long, and the probe waits for a second only.
NVPMODEL = """
number=0
[ ! -f /var/lib/nvpmodel ] || read -r number </var/lib/nvpmodel
[ "$1" != -m ] || { number=$2; echo "$number" >/var/lib/nvpmodel; }
while read -r _ _ id name _; do
    [ "$id" != "ID=$number" ] || { [ "$1" = -m ] || printf 'NV Power Mode: %s\\n%s\\n' "${name#NAME=}" "$number"; exit 0; }
done </etc/nvpmodel.conf
exit 1
"""
JETSON_CLOCKS = """
for folder in /sys/devices/system/cpu/cpu*/cpufreq; do
    cat "$folder/scaling_max_freq" >"$folder/scaling_cur_freq"; echo performance >"$folder/scaling_governor"
done
"""


def make_board(root: Path, flavour: str) -> EmulatedBoard:
    """A board with what the guides use of its maker's system: sudo, the C library, and the programs of a Jetson."""
    board = EmulatedBoard(root, flavour)
    board.write_program("usr/bin/sudo", 'exec "$@"')
    # No more of glibc than tells its version: nothing here loads it.
    library = root / "lib" / "aarch64-linux-gnu" / "libc.so.6"
    library.parent.mkdir(parents=True)
    version = b"GNU C Library (Debian GLIBC 2.36-9+deb12u10) stable release version 2.36.\n"
    library.write_bytes(b"\x7fELF\x02\x01\x01" + bytes(9) + bytes([3, 0, 183, 0]) + bytes(108) + version)
    if flavour == "jetson_orin":
        board.write("etc/nvpmodel.conf", POWER_MODES)
        (root / "var" / "lib").mkdir(parents=True)
        board.write_program("usr/sbin/nvpmodel", NVPMODEL)
        board.write_program("usr/bin/jetson_clocks", JETSON_CLOCKS)
    else:
        # Files do not follow the governor as the clock does, so this one is at its maximum from the start.
        for clock in root.glob("sys/devices/system/cpu/cpu*/cpufreq/scaling_cur_freq"):
            clock.write_text("1800000\n")
    return board


def comparable(text: str) -> str:
    """The text with every number replaced by ``#`` and every run of spaces by one: what is the same on any machine."""
    return " ".join(re.sub(r"\d+(?:[.,]\d+)*", "#", text).split())


def missing_lines(documented: tuple[str, ...], printed: str) -> Iterator[str]:
    """The documented lines that were not printed, in this order; a line "…" stands for any others."""
    lines = iter([comparable(line) for line in printed.splitlines()])
    for line in documented:
        if line != "…" and not any(comparable(line.removesuffix(" …")) in candidate for candidate in lines):
            yield line
            return


class Typed:
    """What ``bnn-deploy export`` and ``compile`` do on the PC, whatever board is meant, is done once for all guides.

    Args:
        folder: keeps the files that were made.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._done: dict[str, CompletedProcess[str]] = {}

    def run(self, command: str, folder: Path, environment: dict[str, str]) -> CompletedProcess[str]:
        """``run_documented_here``, or what came of the same line before."""
        if not re.match(r"bnn-deploy (export|compile) ", command):
            return run_documented_here(command, folder, environment)
        if command not in self._done:
            before = set(folder.iterdir())
            done = run_documented_here(command, folder, environment)
            for path in set(folder.iterdir()) - before:
                copy(path, self._folder / str(len(self._done)) / path.name)
            self._done[command] = done
        else:
            for path in (self._folder / str(list(self._done).index(command))).iterdir():
                copy(path, folder / path.name)
        return self._done[command]


def copy(path: Path, to: Path) -> None:
    to.parent.mkdir(exist_ok=True)
    (shutil.copytree if path.is_dir() else shutil.copy2)(path, to)


@pytest.fixture(scope="module")
def typed(tmp_path_factory: pytest.TempPathFactory) -> Typed:
    return Typed(tmp_path_factory.mktemp("typed"))


@pytest.mark.board
@pytest.mark.parametrize("guide", GUIDES)
def test_commands_of_the_guide(guide: str, typed: Typed, tmp_path: Path) -> None:
    """A command of the guide fails on the PC or on the board, or prints something else than the guide shows."""
    needs_board()
    flavour, host = GUIDES[guide]
    commands = documented_commands((ROOT / "docs" / guide).read_text())
    assert len(commands) >= 12
    folder = tmp_path / "work"
    shutil.copytree(ROOT / "examples" / "c", folder / "examples" / "c")
    with BoardServer(make_board(tmp_path / "board", flavour), tmp_path / "server") as server:
        client = SshClient(tmp_path / "client", {host: server})
        with client.environment():
            environment = newcomers_environment(tmp_path / "programs")
            for documented in commands:
                done = typed.run(documented.command, folder, environment)
                missing = list(missing_lines(documented.output, done.stdout + done.stderr))
                assert not missing, f"{documented.command}\nlacks {missing}\n{done.stdout}{done.stderr}"
    made = {path.name for path in folder.iterdir()}
    assert {"examples", "network.onnx", "network_arm64", "profile.html", "x.npy", "y.npy"} <= made
    assert (
        server.board.root.joinpath("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").read_text()
        == "performance\n"
    )


def test_transcripts_are_compared() -> None:
    """A guide may show anything, since what the commands print is not compared with it."""
    printed = "memory   3,473 MB free\nclock  1800 of 1800 MHz\ndone\n"
    assert not list(missing_lines(("memory 12 MB free", "…", "done"), printed))
    assert list(missing_lines(("memory 12 MB used", "…", "done"), printed)) == ["memory 12 MB used"]
    assert list(missing_lines(("done", "clock 1800 of 1800 MHz"), printed)) == ["clock 1800 of 1800 MHz"]


@pytest.mark.parametrize("guide", GUIDES)
def test_no_latency_of_an_emulator(guide: str) -> None:
    """The guide shows a time that an emulator took, and somebody takes it for the board's."""
    shown = [
        line
        for documented in documented_commands((ROOT / "docs" / guide).read_text())
        for line in documented.output
        if re.search(r"\d\s?(ms|us|µs|s)\b|Gbmacs", line)
    ]
    assert not shown
