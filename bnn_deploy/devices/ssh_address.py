"""Addresses of ssh devices: ``ssh://[user@]host[:port]``."""

from __future__ import annotations

import re
from dataclasses import dataclass

from bnn_deploy.errors import InputError

# Host names, aliases of ~/.ssh/config, IPv4 and (in brackets) IPv6 addresses. No first character is "-": a host or user
# that begins with it would be an option of ssh.
_ADDRESS = re.compile(
    r"ssh://(?:(?P<user>[A-Za-z0-9_][A-Za-z0-9_.-]*)@)?"
    r"(?:(?P<host>[A-Za-z0-9_][A-Za-z0-9_.-]*)|\[(?P<six>[0-9A-Fa-f:.]+(?:%[A-Za-z0-9_.-]+)?)\])"
    r"(?::(?P<port>[0-9]{1,5}))?/?"
)


@dataclass(frozen=True)
class SshAddress:
    """Where a device is; what is None is left to the user's ssh configuration."""

    host: str
    user: str | None = None
    port: int | None = None

    def words(self) -> list[str]:
        """The arguments of ``ssh`` that lead there; a remote command may follow."""
        user = ["-l", self.user] if self.user is not None else []
        port = ["-p", str(self.port)] if self.port is not None else []
        return [*user, *port, "--", self.host]

    def typed(self) -> str:
        """What a person types after ``ssh`` or ``ssh-copy-id``."""
        port = f"-p {self.port} " if self.port is not None else ""
        return f"{port}{self.user + '@' if self.user is not None else ''}{self.host}"

    def known_name(self) -> str:
        """Its name in known_hosts, which ``ssh-keygen -R`` takes."""
        return self.host if self.port in (None, 22) else f"'[{self.host}]:{self.port}'"


def parse_address(text: str) -> SshAddress:
    """The parts of ``ssh://[user@]host[:port]``.

    Raises:
        InputError: it is not of that form.
    """
    match = _ADDRESS.fullmatch(text)
    if match is None or (match["port"] is not None and not 1 <= int(match["port"]) <= 65535):
        raise InputError(
            f"The device {text!r} is no ssh address, expected ssh://user@host or ssh://user@host:port (no password and no "
            "path; keys and other settings belong into ~/.ssh/config)."
        )
    return SshAddress(
        match["host"] or match["six"], match["user"], None if match["port"] is None else int(match["port"])
    )
