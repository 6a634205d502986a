"""``rpc://host:port``: one board that runs TVM's own RPC server."""

from __future__ import annotations

import numpy as np

from bnn_deploy.bundle.bundle import Bundle
from bnn_deploy.devices.base import Device, DeviceProfile, Session
from bnn_deploy.devices.rpc_address import RpcAddress, parse_rpc_address
from bnn_deploy.devices.rpc_board import RpcBoard
from bnn_deploy.devices.rpc_probe import board_state
from bnn_deploy.devices.system_state import SystemState
from bnn_deploy.errors import DeviceError
from bnn_deploy.progress import ReportProgress, quiet
from bnn_deploy.runtime.arrays import check_threads


class RpcDevice(Device):
    """A board behind a TVM RPC server.

    Args:
        name: ``rpc://host:port``, perhaps with ``?insecure``.
        timeout: seconds that one batch, one profile or one upload may take.

    Raises:
        InputError: the address is malformed, or leads to another machine without ``?insecure``.
    """

    def __init__(self, name: str, timeout: float) -> None:
        self.name = name
        self.timeout = timeout
        self.address = parse_rpc_address(name)

    def open(self, bundle: Bundle, threads: int = 1, progress: ReportProgress = quiet) -> Session:
        """See ``Device.open``."""
        return RpcSession(bundle, threads, self.address, self.timeout, progress)

    def system_states(self) -> dict[str, SystemState | DeviceError]:
        """See ``Device.system_states``."""
        board = RpcBoard(self.timeout)
        try:
            board.start()
            board.connect(self.address.host, self.address.port, "")
            return {self.name: board_state(board)}
        finally:
            board.close()


class RpcSession(Session):
    """A bundle on one board; the board's server drops what was uploaded when the session ends."""

    def __init__(
        self, bundle: Bundle, threads: int, address: RpcAddress, timeout: float, progress: ReportProgress
    ) -> None:
        super().__init__(bundle, threads)
        check_threads(threads)
        self._board = RpcBoard(timeout)
        try:
            self._board.start()
            self._board.connect(address.host, address.port, address.key)
            progress(f"copying {bundle.library.stat().st_size} bytes to {self._board.name}")
            self._board.load(bundle, threads)
        except BaseException:
            self._board.close()
            raise

    def run(self, array: np.ndarray) -> np.ndarray:
        """See ``Session.run``."""
        return self._board.run(array)

    def run_tapped(
        self, array: np.ndarray, taps: np.ndarray, total_bytes: int, forced: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """See ``Session.run_tapped``."""
        return self._board.run_tapped(array, taps, total_bytes, forced)

    def profile(self, *, repeat: int = 20, warmup: int = 3) -> list[DeviceProfile]:
        """See ``Session.profile``."""
        return [self._board.profile(repeat, warmup)]

    def close(self) -> None:
        """See ``Session.close``."""
        self._board.close()
