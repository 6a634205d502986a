"""``tracker://host:port/KEY``: all free boards that TVM's RPC tracker knows under a key."""

from __future__ import annotations

from bnn_deploy.bundle.bundle import Bundle
from bnn_deploy.devices.base import Device, Session, check_single
from bnn_deploy.devices.fleet import FleetSession
from bnn_deploy.devices.fleet_threads import on_each
from bnn_deploy.devices.rpc_address import RpcAddress, parse_tracker_address
from bnn_deploy.devices.rpc_board import RpcBoard
from bnn_deploy.devices.rpc_probe import board_state
from bnn_deploy.devices.system_state import SystemState
from bnn_deploy.devices.tracker_client import Grant, TrackerClient
from bnn_deploy.errors import BnnDeployError, DeviceError
from bnn_deploy.progress import ReportProgress, quiet
from bnn_deploy.runtime.arrays import check_threads

SETTLE_SECONDS = 2.0  # a board that was given back is free again only after a moment


class TrackerDevice(Device):
    """The boards of a key.

    Args:
        name: ``tracker://host:port/KEY``, perhaps with ``?insecure``.
        timeout: seconds to wait for a free board, and that one batch, profile or upload may take on each.

    Raises:
        InputError: the address is malformed, or leads to another machine without ``?insecure``.
    """

    def __init__(self, name: str, timeout: float) -> None:
        self.name = name
        self.timeout = timeout
        self.address = parse_tracker_address(name)

    def open(self, bundle: Bundle, threads: int = 1, progress: ReportProgress = quiet) -> Session:
        """See ``Device.open``; takes the boards from the tracker until the session is closed."""
        check_single(bundle)
        check_threads(threads)
        boards, lost = gather(self.address, self.timeout, progress)
        return FleetSession(bundle, threads, boards, lost, progress)

    def system_states(self) -> dict[str, SystemState | DeviceError]:
        """See ``Device.system_states``."""
        boards, lost = gather(self.address, self.timeout, quiet)
        found: dict[str, SystemState | DeviceError] = {name: DeviceError(reason) for name, reason in lost.items()}
        for board, state in zip(boards, on_each(boards, board_state), strict=True):
            if isinstance(state, BnnDeployError) and not isinstance(state, DeviceError):
                raise state  # such as a linker that is missing here: no board's fault
            found[board.name] = state
        on_each(boards, RpcBoard.close)
        return dict(sorted(found.items()))


def gather(address: RpcAddress, timeout: float, progress: ReportProgress) -> tuple[list[RpcBoard], dict[str, str]]:
    """Connections to all free boards of a key; waits until there is one.

    Args:
        address: of the tracker.
        timeout: seconds to wait for the first, and the timeout of the connections.
        progress: told when there is none yet.

    Returns:
        at least one board; and of those that the tracker gave away but nobody could connect to, address and reason.

    Raises:
        DeviceError: the key is unknown, its boards stay taken or cannot be connected to, or the tracker has trouble.
    """
    with TrackerClient(address) as client:
        count = len(client.boards_of_key())
    boards = [RpcBoard(timeout) for _ in range(count)]
    try:
        # A board takes back what its tracker gave away when nobody connects within seconds, so the clients are ready first.
        for result in on_each(boards, RpcBoard.start):
            if isinstance(result, DeviceError):
                raise result
        grants = on_each(boards, lambda board: _take(address, board, SETTLE_SECONDS))
        if all(grant is None for grant in grants):
            progress(f"waiting for one of {count} boards of the key {address.key}, all of which are taken")
            grants = on_each(boards[:1], lambda board: _take(address, board, timeout))
            grants += [None] * (count - 1)
    except BaseException:
        for board in boards:
            board.kill()
        raise
    connected, lost = [], {}
    for board, grant in zip(boards, grants, strict=True):
        if grant is None or isinstance(grant, BnnDeployError):
            board.close()
        if isinstance(grant, BnnDeployError):
            lost[board.name] = str(grant)
            progress(f"lost a board, going on without it: {grant}")
        elif grant is not None:
            connected.append(board)
    if not connected:
        reasons = "; ".join(reason.rstrip(".") for reason in lost.values())
        raise DeviceError(
            f"None of the {count} boards of the key {address.key!r} at the tracker {address.place} can be used: "
            f"{reasons or f'all stayed taken for {timeout:g} s; wait for their user to finish, or give more with --timeout'}."
        )
    taken = count - len(connected) - len(lost)
    if taken:
        progress(f"{taken} of {count} boards of the key {address.key} are taken by others")
    return sorted(connected, key=lambda board: board.name), lost


def _take(address: RpcAddress, board: RpcBoard, timeout: float) -> Grant | None:
    """Get a free board from the tracker and connect to it; None if there is none in ``timeout`` seconds."""
    with TrackerClient(address) as client:
        grant = client.request(timeout)
    if grant is not None:
        board.connect(grant.host, grant.port, grant.key)
    return grant
