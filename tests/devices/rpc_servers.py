"""TVM's own RPC servers and tracker, as processes of this machine that tests may kill, for tests of ``rpc://`` and ``tracker://``.

A server runs under this Python, or under the emulated arm64 Python that ``.ci/boards`` makes.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

BOARD_PYTHON = Path(__file__).parent.parent.parent / ".boards" / "python" / "board_python"
START_SECONDS = 120.0


class RpcProcess:
    """A server or a tracker on 127.0.0.1, with all processes that it starts.

    Attributes:
        port: where it listens, once ``wait`` has returned.
        log: what it wrote.
    """

    def __init__(
        self,
        folder: Path,
        module: str,
        *arguments: str,
        python: Path | str = sys.executable,
        environment: dict[str, str] | None = None,
    ) -> None:
        """Start ``python -m tvm.exec.MODULE``; ``folder`` gets its files."""
        folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.place = f"127.0.0.1:{self.port}"
        self._log = folder / f"{module}-{self.port}.log"
        # A board has no PyTorch, and TVM would import it if it could.
        (folder / "torch.py").write_text("raise ImportError('there is no PyTorch on this board')\n")
        settings = {"TVM_USE_RUNTIME_LIB": "1", "PYTHONPATH": str(folder), "TMPDIR": str(folder)}
        place = ("--host", "127.0.0.1", "--port", str(self.port), "--port-end", str(self.port + 1))
        with open(self._log, "wb") as log:
            self._process = subprocess.Popen(
                [str(python), "-m", f"tvm.exec.{module}", *place, *arguments],
                env={**os.environ, **settings, **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def wait(self) -> None:
        """Return when it listens."""
        deadline = time.monotonic() + START_SECONDS
        while "bind to" not in self.log:
            assert self._process.poll() is None and time.monotonic() < deadline, self.log
            time.sleep(0.05)

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        """End all its processes at once, as when the power is lost but the network notices."""
        self._signal(signal.SIGKILL)
        self._process.wait()

    def freeze(self) -> None:
        """Stop all its processes: connections stay open, and nothing answers. ``thaw`` or ``kill`` must follow."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def work_folders(self) -> list[Path]:
        """Where it put what clients uploaded."""
        return [Path(match) for match in re.findall(r"start serving at (\S+)", self.log)]

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)


class Fleet:
    """A tracker with boards of one key.

    Attributes:
        tracker: its process.
        boards: by address, those that were started and not killed by ``mend``.
    """

    key = "shelf"

    def __init__(self, folder: Path, size: int) -> None:
        self._folder = folder
        self._size = size
        self.tracker = RpcProcess(folder / "tracker", "rpc_tracker")
        self.boards: dict[str, RpcProcess] = {}
        self._broken: set[str] = set()
        self.tracker.wait()

    @property
    def address(self) -> str:
        """What ``--device`` takes."""
        return f"tracker://{self.tracker.place}/{self.key}"

    def mend(self) -> None:
        """Put new boards in the place of those that were killed or frozen; returns when all are free."""
        for name in [name for name, board in self.boards.items() if name in self._broken or not board.alive]:
            self.boards.pop(name).kill()
        self._broken.clear()
        new = []
        while len(self.boards) < self._size:
            options = ("--tracker", self.tracker.place, "--key", self.key)
            board = RpcProcess(self._folder / "board", "rpc_server", *options)
            self.boards[board.place] = board
            new.append(board)
        for board in new:
            board.wait()
        self._wait_until_free()

    def break_board(self, name: str, *, freeze: bool = False) -> None:
        """Kill or freeze the board of an address."""
        self._broken.add(name)
        self.boards[name].freeze() if freeze else self.boards[name].kill()

    def stop(self) -> None:
        for process in (*self.boards.values(), self.tracker):
            process.kill()

    def _wait_until_free(self) -> None:
        from tvm.rpc import connect_tracker

        deadline = time.monotonic() + START_SECONDS
        while True:
            summary = connect_tracker("127.0.0.1", self.tracker.port).summary()
            if summary["queue_info"].get(self.key, {}).get("free") == self._size == len(summary["server_info"]):
                return
            assert time.monotonic() < deadline, summary
            time.sleep(0.05)


def needs_rpc(*, emulated: bool = False) -> None:
    """Skip the test where the tools of RPC boards are missing; in continuous integration (CI is set) that is a failure."""
    missing = [name for name in ("tornado", "cloudpickle", "psutil") if importlib.util.find_spec(name) is None]
    if emulated:
        missing += [] if shutil.which("qemu-aarch64") else ["qemu-aarch64"]
        missing += [] if BOARD_PYTHON.exists() else [f"{BOARD_PYTHON}, which .ci/boards makes"]
    if missing:
        sentence = f"missing: {', '.join(missing)} (apache-tvm[rpc]; Debian package qemu-user)"
        if os.environ.get("CI"):
            pytest.fail(sentence)
        pytest.skip(sentence)


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def own_children() -> set[int]:
    """The processes that this one has started and that still run."""
    children = [path.read_text().split() for path in Path("/proc/self/task").glob("*/children")]
    return {int(child) for line in children for child in line}
