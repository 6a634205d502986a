"""The protocol of TVM's RPC tracker: which boards of a key there are, and getting hold of a free one.

Magic number, then messages of a 32-bit little-endian length and JSON (tvm/rpc/tracker.py and base.py of TVM 0.27). What a
tracker says is not trusted: messages are bounded, and every field is checked.
"""

from __future__ import annotations

import json
import socket
import struct
from dataclasses import dataclass
from typing import Any

from bnn_deploy.devices.rpc_address import KEY, RpcAddress, check_board_address
from bnn_deploy.errors import DeviceError

MAGIC = 0x2F271
SUCCESS, REQUEST, SUMMARY = 0, 4, 6  # TrackerCode
MESSAGE_BYTES = 1 << 20
CONNECT_SECONDS = 10.0
MOST_BOARDS = 100  # each has a process of some 80 MB here


@dataclass(frozen=True)
class Grant:
    """A board that the tracker has given to us alone: its server takes one client with this key."""

    host: str
    port: int
    key: str


class TrackerClient:
    """A connection to a tracker. A request that was not answered is withdrawn when it is closed."""

    def __init__(self, address: RpcAddress) -> None:
        """Connect.

        Raises:
            DeviceError: nothing listens there, or it is no TVM RPC tracker.
        """
        self.address = address
        try:
            self._socket = socket.create_connection((address.host, address.port), timeout=CONNECT_SECONDS)
        except OSError as error:
            reason = "no answer" if isinstance(error, TimeoutError) else error.strerror or str(error)
            raise DeviceError(
                f"The tracker {address.place} cannot be reached ({reason}); start `python -m tvm.exec.rpc_tracker --host "
                f"127.0.0.1 --port {address.port}`, and the ssh tunnel that leads to it."
            ) from error
        try:
            self._socket.sendall(struct.pack("<i", MAGIC))
            if struct.unpack("<i", self._receive(4))[0] != MAGIC:
                raise OSError("another protocol")
        except OSError as error:
            self.close()
            raise DeviceError(
                f"What listens at {address.place} is no TVM RPC tracker; give the address of one, or rpc://{address.place} for "
                "a board's own server."
            ) from error

    def boards(self) -> dict[str, list[tuple[object, object]]]:
        """What the tracker gives as host and port of all registered boards, by key, taken ones included.

        Raises:
            DeviceError: the tracker went away or talks nonsense.
        """
        self._send([SUMMARY])
        try:
            return _read_boards(self._answer(CONNECT_SECONDS), self.address)
        except TimeoutError as error:
            raise self._gone(error) from error

    def boards_of_key(self) -> list[tuple[str, int]]:
        """The addresses of the boards of the address's key.

        Raises:
            DeviceError: there are none or too many, one must not be talked to, or as ``boards``.
        """
        known, key = self.boards(), self.address.key
        if key not in known:
            raise DeviceError(
                f"The tracker {self.address.place} has no boards of the key {key!r}, its keys are: "
                f"{', '.join(sorted(known)[:20]) or 'none at all'}; start the boards' servers with --tracker and --key {key}."
            )
        if len(known[key]) > MOST_BOARDS:
            raise DeviceError(
                f"The tracker {self.address.place} has {len(known[key])} boards of the key {key!r}, and a command serves at most "
                f"{MOST_BOARDS}; share them out over several keys."
            )
        return [check_board_address(host, port, self.address) for host, port in known[key]]

    def request(self, timeout: float) -> Grant | None:
        """A free board of the address's key; None if none became free in ``timeout`` seconds.

        Raises:
            DeviceError: the tracker went away or talks nonsense, or names a board that must not be talked to.
        """
        self._send([REQUEST, self.address.key, "", 1])
        try:
            value = self._answer(timeout)
        except TimeoutError:
            return None
        if not isinstance(value, list) or len(value) != 3 or not isinstance(value[2], str):
            raise _nonsense(self.address)
        host, port = check_board_address(value[0], value[1], self.address)
        return Grant(host, port, value[2])

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    def __enter__(self) -> TrackerClient:
        return self

    def __exit__(self, *details: object) -> None:
        self.close()

    def _send(self, message: list[Any]) -> None:
        data = json.dumps(message).encode()
        try:
            self._socket.sendall(struct.pack("<i", len(data)) + data)
        except OSError as error:
            raise self._gone(error) from error

    def _answer(self, timeout: float) -> Any:
        """The value of the next message; TimeoutError if none begins within ``timeout`` seconds."""
        self._socket.settimeout(timeout)
        try:
            size = struct.unpack("<i", self._receive(4))[0]
        except TimeoutError:
            raise
        except OSError as error:
            raise self._gone(error) from error
        if not 0 < size <= MESSAGE_BYTES:
            raise _nonsense(self.address)
        self._socket.settimeout(CONNECT_SECONDS)
        try:
            answer = json.loads(self._receive(size))
        except OSError as error:
            raise self._gone(error) from error
        except (ValueError, RecursionError) as error:
            raise _nonsense(self.address) from error
        if not isinstance(answer, list) or len(answer) != 2 or answer[0] != SUCCESS:
            raise _nonsense(self.address)
        return answer[1]

    def _gone(self, error: OSError) -> DeviceError:
        return DeviceError(f"The tracker {self.address.place} went away ({error}); start it again.")

    def _receive(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            chunk = self._socket.recv(size - len(data))
            if not chunk:
                raise OSError("it closed the connection")
            data += chunk
        return data


def _nonsense(address: RpcAddress) -> DeviceError:
    return DeviceError(
        f"The tracker {address.place} gave an answer that TVM's protocol does not know; use the tracker of the apache-tvm that "
        "is installed here."
    )


def _read_boards(value: Any, address: RpcAddress) -> dict[str, list[tuple[object, object]]]:
    boards: dict[str, list[tuple[object, object]]] = {}
    try:
        for item in value["server_info"]:
            kind, _, key = item["key"].partition(":")
            host, port = item["addr"]
            if kind == "server" and KEY.fullmatch(key) is not None:
                boards.setdefault(key, []).append((host, port))
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise _nonsense(address) from error
    return boards
