"""What OpenSSH's client says when it cannot connect, as one sentence with what to do."""

from __future__ import annotations

from bnn_deploy.devices.ssh_address import SshAddress

CONNECT_SECONDS = 10

# Phrases of ssh's and the C library's messages for trouble that may pass by itself: a board that restarts, a network that
# comes back.
_PASSING = (
    "Connection refused",
    "timed out",
    "No route to host",
    "Network is unreachable",
    "Host is down",
    "Connection reset",
    "Connection closed",
    "closed by remote host",
    "kex_exchange_identification",
    "Broken pipe",
)


def may_pass(said: str) -> bool:
    """Is this trouble that a second attempt may not meet?"""
    return said.strip() == "" or any(phrase in said for phrase in _PASSING)


def failure_sentence(board: str, address: SshAddress, said: str) -> str:
    """One sentence about a connection that was not made.

    Args:
        board: how errors name the device.
        address: where it should be.
        said: everything that ssh wrote on stderr.
    """
    typed = address.typed()
    if "REMOTE HOST IDENTIFICATION HAS CHANGED" in said:
        return (
            f"{board}: its host key is not the one in your known_hosts, so it is another machine, or one set up anew; only if "
            f"you know why, remove the old key with `ssh-keygen -R {address.known_name()}` and accept the new one with "
            f"`ssh {typed}`."
        )
    if "Host key verification failed" in said or "host key is known for" in said:
        return (
            f"{board}: its host key is not in your known_hosts; connect once with `ssh {typed}`, compare the fingerprint with "
            "the board's (`ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub` there) and accept it."
        )
    if "Permission denied" in said or "Too many authentication failures" in said:
        return (
            f"{board}: the machine lets nobody in with the keys that ssh offers (no password is ever asked for here); install "
            f"your key there with `ssh-copy-id {typed}`, or load it into ssh-agent."
        )
    if "Could not resolve hostname" in said:
        return (
            f"{board}: the host name {address.host} is unknown; check the spelling and that the board is on this network, or "
            "give its IP address."
        )
    if "Connection refused" in said:
        return f"{board}: the machine is there but no ssh server listens on that port; enable ssh on it, or check the port."
    if any(phrase in said for phrase in ("timed out", "No route to host", "Network is unreachable", "Host is down")):
        return f"{board}: the machine does not answer (waited {CONNECT_SECONDS} s); check its power, its network and the address."
    reason = f"ssh says: {quoted(said, last=True)}" if said.strip() else "ssh ended without a reason"
    return f"{board}: cannot connect, {reason}; try `ssh {typed}`."


def quoted(said: str, *, last: bool = False) -> str:
    """The first or last line of what another machine says, for a sentence of ours: no control characters, no full stop."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    line = lines[-1 if last else 0] if lines else ""
    return "".join(character if character.isprintable() else "?" for character in line[:300]).rstrip(".")
