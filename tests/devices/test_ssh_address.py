"""Addresses of ssh devices."""

from __future__ import annotations

import pytest

from bnn_deploy.devices.ssh_address import SshAddress, parse_address
from bnn_deploy.errors import InputError


@pytest.mark.parametrize(
    ("text", "expected", "typed"),
    [
        ("ssh://pi@raspberrypi.local", SshAddress("raspberrypi.local", "pi"), "pi@raspberrypi.local"),
        ("ssh://board-3", SshAddress("board-3"), "board-3"),
        ("ssh://pi@10.0.0.7:2222/", SshAddress("10.0.0.7", "pi", 2222), "-p 2222 pi@10.0.0.7"),
        ("ssh://a.b-c_d@[fe80::1%eth0]:22", SshAddress("fe80::1%eth0", "a.b-c_d", 22), "-p 22 a.b-c_d@fe80::1%eth0"),
    ],
)
def test_addresses_are_taken_apart(text: str, expected: SshAddress, typed: str) -> None:
    """A board is looked for elsewhere than where the user said."""
    assert parse_address(text) == expected
    assert parse_address(text).typed() == typed


@pytest.mark.parametrize(
    "text",
    [
        "ssh://",
        "ssh://-oProxyCommand=touch pwned",
        "ssh://-oProxyCommand=x@host",
        "ssh://pi@-host",
        "ssh://pi@host;reboot",
        "ssh://pi:secret@host",
        "ssh://pi@host/etc",
        "ssh://pi@host:0",
        "ssh://pi@host:65536",
        "ssh://pi@host:",
        "ssh://pi@ho st",
        "ssh://pi@host\n",
        "ssh://pi@[host]",
        "ssh://pi@$(reboot)",
    ],
)
def test_other_addresses_are_refused(text: str) -> None:
    """An address becomes an option of ssh or a command of a shell, or a typing error reaches ssh."""
    with pytest.raises(InputError, match="expected ssh://user@host"):
        parse_address(text)
