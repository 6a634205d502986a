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
    address = _parse(text, "rpc://HOST:PORT", with_key=False)
    _check_loopback(text, address, 9090)
    return address


def parse_tracker_address(text: str) -> RpcAddress:
    """``tracker://host:port/KEY``, perhaps with ``?insecure``.

    Raises:
        InputError: it is malformed, or leads to another machine without ``?insecure``.
    """
    address = _parse(text, "tracker://HOST:PORT/KEY", with_key=True)
    _check_loopback(text, address, 9190)
    return address


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


def _parse(text: str, form: str, *, with_key: bool) -> RpcAddress:
    address, _, option = text.partition("://")[2].partition("?")
    authority, slash, key = address.partition("/")
    match = _AUTHORITY.fullmatch(authority)
    well_formed = match is not None and 1 <= int(match["port"]) <= 65535 and option in ("", "insecure")
    if match is None or not well_formed or bool(slash) != with_key or (with_key and KEY.fullmatch(key) is None):
        raise InputError(f"The device {text!r} is no address of the form {form}, such as {_example(form)}.")
    return RpcAddress(match["ipv6"] or match["host"], int(match["port"]), key, option == "insecure")


def _example(form: str) -> str:
    return {"rpc": "rpc://127.0.0.1:9090", "tracker": "tracker://127.0.0.1:9190/rpi4"}[form.partition("://")[0]]


def _check_loopback(text: str, address: RpcAddress, local_port: int) -> None:
    if address.insecure or is_loopback(address.host):
        return
    scheme = text.partition("://")[0]
    local = f"{scheme}://127.0.0.1:{local_port}" + (f"/{address.key}" if address.key else "")
    raise InputError(
        f"{text} is another machine, and TVM's RPC has neither authentication nor encryption: tunnel it with "
        f"`ssh -N -o ServerAliveInterval=5 -L {local_port}:127.0.0.1:{address.port} user@{address.host}` and use {local}, or "
        "append ?insecure to the address if you trust everybody on that network."
    )
