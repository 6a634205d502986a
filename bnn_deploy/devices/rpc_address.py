"""Addresses of TVM's RPC servers and trackers, and which of them may be talked to.

TVM's RPC has no authentication and no encryption: a server runs whatever code it is sent, and anybody on the way may read and
change it. So only loopback addresses are accepted, which an ssh tunnel leads from to a board, unless the address says
``?insecure``.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from bnn_deploy.errors import DeviceError, InputError

_AUTHORITY = re.compile(r"(?:\[(?P<ipv6>[0-9A-Fa-f:.]+)\]|(?P<host>[A-Za-z0-9][A-Za-z0-9._-]*)):(?P<port>[0-9]{1,5})")
# What TVM's own protocol can carry: it splits keys at white space and colons.
KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True)
class RpcAddress:
    """Where a server or a tracker listens.

    Attributes:
        host: name, IPv4 or IPv6 address.
        port: 1..65535.
        key: the tracker's name of a kind of boards, "" for a server.
        insecure: hosts other than this one may be talked to.
    """

    host: str
    port: int
    key: str = ""
    insecure: bool = False

    @property
    def place(self) -> str:
        """``host:port``, IPv6 addresses in brackets."""
        return place(self.host, self.port)


def parse_rpc_address(text: str) -> RpcAddress:
    """``rpc://host:port``, perhaps with ``?insecure``.

    Raises:
        InputError: it is malformed, or leads to another machine without ``?insecure``.
    """
    return _parse(text, "rpc://HOST:PORT", "rpc://127.0.0.1:9090")


def parse_tracker_address(text: str) -> RpcAddress:
    """``tracker://host:port/KEY``, perhaps with ``?insecure``.

    Raises:
        InputError: it is malformed, or leads to another machine without ``?insecure``.
    """
    return _parse(text, "tracker://HOST:PORT/KEY", "tracker://127.0.0.1:9190/rpi4")


def is_loopback(host: str) -> bool:
    """``localhost``, or an address that only this machine can reach; other names are not looked up."""
    try:
        return host.lower() == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_board_address(host: object, port: object, tracker: RpcAddress) -> tuple[str, int]:
    """The address of a board as a tracker tells it.

    Raises:
        DeviceError: it is no address, or leads to another machine and the tracker's address does not say ``?insecure``.
    """
    if not isinstance(host, str) or not isinstance(port, int) or _AUTHORITY.fullmatch(place(host, port)) is None:
        raise DeviceError(
            f"The tracker {tracker.place} names a board by no address but {(host, port)!r:.100}; restart that board's server."
        )
    if not tracker.insecure and not is_loopback(host):
        raise DeviceError(
            f"The tracker {tracker.place} names the board {place(host, port)}, and TVM's RPC has neither authentication nor "
            "encryption: start the board's server with --custom-addr 127.0.0.1 behind an ssh tunnel (docs/fleets.md), or "
            "append ?insecure to the tracker's address if you trust everybody on that network."
        )
    return host, port


def place(host: str, port: int) -> str:
    """``host:port``, IPv6 addresses in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _parse(text: str, form: str, example: str) -> RpcAddress:
    address, _, option = text.partition("://")[2].partition("?")
    authority, slash, key = address.partition("/")
    with_key = form.endswith("/KEY")
    match = _AUTHORITY.fullmatch(authority)
    well_formed = match is not None and 1 <= int(match["port"]) <= 65535 and option in ("", "insecure")
    if match is None or not well_formed or bool(slash) != with_key or (with_key and KEY.fullmatch(key) is None):
        raise InputError(f"The device {text!r} is no address of the form {form}, such as {example}.")
    found = RpcAddress(match["ipv6"] or match["host"], int(match["port"]), key, option == "insecure")
    if not found.insecure and not is_loopback(found.host):
        raise _another_machine(text, found, example)
    return found


def _another_machine(text: str, address: RpcAddress, example: str) -> InputError:
    """The error that says how to tunnel: from the example's port of this machine."""
    place_here, slash, _ = example.partition("://")[2].partition("/")
    local = f"{example.partition('://')[0]}://{place_here}{slash}{address.key}"
    port = place_here.partition(":")[2]
    return InputError(
        f"{text} is another machine, and TVM's RPC has neither authentication nor encryption: tunnel it with "
        f"`ssh -N -o ServerAliveInterval=5 -L {port}:127.0.0.1:{address.port} user@{address.host}` and use {local}, or "
        "append ?insecure to the address if you trust everybody on that network."
    )
