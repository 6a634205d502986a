"""Addresses of RPC servers and trackers: what is one, and that other machines are not talked to by accident."""

from __future__ import annotations

import pytest

from bnn_deploy.devices.registry import get_device
from bnn_deploy.devices.rpc_address import (
    RpcAddress,
    check_board_address,
    is_loopback,
    parse_rpc_address,
    parse_tracker_address,
)
from bnn_deploy.errors import DeviceError, InputError


def test_addresses_are_read() -> None:
    """A user's address leads to another host, port or key than it says."""
    assert parse_rpc_address("rpc://localhost:9090") == RpcAddress("localhost", 9090)
    assert parse_rpc_address("rpc://[::1]:1") == RpcAddress("::1", 1)
    assert parse_rpc_address("rpc://[::1]:1").place == "[::1]:1"
    assert parse_rpc_address("rpc://pi.lan:9090?insecure") == RpcAddress("pi.lan", 9090, insecure=True)
    assert parse_tracker_address("tracker://127.0.0.1:9190/rpi-4b") == RpcAddress("127.0.0.1", 9190, "rpi-4b")
    assert parse_tracker_address("tracker://10.1.2.3:65535/k?insecure") == RpcAddress("10.1.2.3", 65535, "k", True)


@pytest.mark.parametrize(
    "address",
    [
        *("rpc://", "rpc://127.0.0.1", "rpc://127.0.0.1:", "rpc://127.0.0.1:0", "rpc://127.0.0.1:65536", "rpc://:9090"),
        *("rpc://127.0.0.1:9090/key", "rpc://127.0.0.1:9090?secure", "rpc://me@127.0.0.1:9090", "rpc://-o:9090"),
        *("rpc://::1:9090", "rpc://[::1:9090", "rpc://127.0.0.1:9090 ", "rpc://127.0.0.1:٩٠", "rpc://host\n:1"),
        *("tracker://127.0.0.1:9190", "tracker://127.0.0.1:9190/", "tracker://127.0.0.1:9190/a/b"),
        *("tracker://127.0.0.1:9190/a b", "tracker://127.0.0.1:9190/a:b", "tracker://127.0.0.1:9190/-timeout=0"),
    ],
)
def test_malformed_addresses_are_named(address: str) -> None:
    """A typing error ends in a traceback, or in a connection to somewhere else."""
    with pytest.raises(InputError, match="no address of the form"):
        get_device(address)


@pytest.mark.parametrize("host", ["192.168.1.5", "raspberrypi.local", "0.0.0.0", "localhost.example.org", "[fe80::1]"])
def test_other_machines_are_refused_with_the_tunnel_to_type(host: str) -> None:
    """Somebody's network, code or logits are exposed without their having said so, or they are not told what is safe."""
    with pytest.raises(InputError) as caught:
        get_device(f"rpc://{host}:9999")
    assert f"ssh -N -o ServerAliveInterval=5 -L 9090:127.0.0.1:9999 user@{host.strip('[]')}" in str(caught.value)
    assert "rpc://127.0.0.1:9090" in str(caught.value) and "?insecure" in str(caught.value)
    with pytest.raises(
        InputError, match=r"ssh -N -o ServerAliveInterval=5 -L 9190:127\.0\.0\.1:9191 .*tracker://127\.0\.0\.1:9190/key"
    ):
        get_device(f"tracker://{host}:9191/key")
    assert get_device(f"rpc://{host}:9999?insecure").name == f"rpc://{host}:9999?insecure"


def test_only_loopback_is_loopback() -> None:
    """A name or an address that leads elsewhere passes for this machine."""
    assert all(map(is_loopback, ("localhost", "LOCALHOST", "127.0.0.1", "127.9.9.9", "::1")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "10.0.0.1", "pi", "127.0.0.1.nip.io", "", "::ffff:10.0.0.1")))


def test_a_tracker_cannot_lead_elsewhere() -> None:
    """A tracker's answer makes this machine send a network to any address on the internet."""
    tracker = parse_tracker_address("tracker://127.0.0.1:9190/key")
    assert check_board_address("127.0.0.1", 9091, tracker) == ("127.0.0.1", 9091)
    with pytest.raises(DeviceError, match=r"--custom-addr 127\.0\.0\.1"):
        check_board_address("10.0.0.7", 9091, tracker)
    for host, port in (
        (None, 1),
        ("127.0.0.1", "9091"),
        ("127.0.0.1", 10**9),
        ("", 1),
        ("a b", 1),
        ("127.0.0.1", True),
    ):
        with pytest.raises(DeviceError, match="by no address"):
            check_board_address(host, port, tracker)
    insecure = parse_tracker_address("tracker://127.0.0.1:9190/key?insecure")
    assert check_board_address("10.0.0.7", 9091, insecure) == ("10.0.0.7", 9091)
