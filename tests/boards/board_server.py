"""A real OpenSSH server on loopback that leads to a board, and the settings of an OpenSSH client that finds it."""

from __future__ import annotations

import getpass
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from tests.boards.emulated_board import EmulatedBoard

SSHD = "/usr/sbin/sshd"
START_SECONDS = 20.0


class BoardServer:
    """An OpenSSH server whose sessions are shells of a board; a context manager.

    Attributes:
        board: where its sessions run.
        port: on 127.0.0.1.
        identity: private key of the account.
        host_key: what a client's known_hosts says of it, without the names: "ssh-ed25519 AAAA…".
    """

    def __init__(
        self, board: EmulatedBoard, folder: Path, *, environment: dict[str, str] | None = None, prelude: str = ""
    ) -> None:
        """``folder`` is made, and gets the server's files; see ``EmulatedBoard.session_script`` for the others."""
        self.board = board
        self.folder = folder
        self.port = _free_port()
        folder.mkdir(parents=True)
        self.identity = _new_key(folder / "identity")
        (folder / "authorized_keys").write_text(Path(f"{self.identity}.pub").read_text())
        self.host_key = ""
        self.change_host_key()
        session = folder / "session"
        session.write_text(board.session_script(environment, prelude))
        session.chmod(0o755)
        self._write_settings()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """What ``--device`` takes."""
        return f"ssh://{self.board.user}@127.0.0.1:{self.port}"

    def start(self) -> None:
        """Listen; returns when clients can connect."""
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        with open(self.folder / "log", "ab") as log:
            self._process = subprocess.Popen([SSHD, "-D", "-e", "-f", str(self.folder / "settings")], stderr=log)
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.02)
        raise AssertionError(f"sshd does not listen: {(self.folder / 'log').read_text()}")

    def stop(self) -> None:
        """Listen no more, and end all sessions; ``start`` may follow."""
        if self._process is not None:
            descendants = _descendants(self._process.pid)
            self._process.kill()
            self._process.wait()
            _kill(descendants)
            self._process = None

    def drop_connections(self) -> int:
        """End all connections as if the cable were pulled out and in again; returns how many there were."""
        assert self._process is not None
        children = _children(self._process.pid)
        _kill([process for child in children for process in (child, *_sshd_children(child))])
        return len(children)

    def freeze(self) -> None:
        """Answer nothing more, on old and new connections; ``stop`` must follow."""
        assert self._process is not None
        for process in (self._process.pid, *_descendants(self._process.pid)):
            os.kill(process, signal.SIGSTOP)

    def sessions(self) -> list[int]:
        """Processes of this machine that run in sessions of the board."""
        assert self._process is not None
        # One without a name has ended meanwhile.
        named = [(process, _name(process)) for process in _descendants(self._process.pid)]
        return [process for process, name in named if name and "sshd" not in name]

    def change_host_key(self) -> None:
        """Another identity of the machine, at the next ``start``."""
        key = self.folder / "host_key"
        key.unlink(missing_ok=True)
        self.host_key = " ".join(Path(f"{_new_key(key)}.pub").read_text().split()[:2])

    def __enter__(self) -> BoardServer:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _write_settings(self) -> None:
        settings = {
            "ListenAddress": f"127.0.0.1:{self.port}",
            "HostKey": self.folder / "host_key",
            "AuthorizedKeysFile": self.folder / "authorized_keys",
            "ForceCommand": self.folder / "session",
            "Subsystem": "sftp /usr/lib/openssh/sftp-server",
            "PidFile": "none",
            "StrictModes": "no",  # the folders of tests may be writable by others
            "UsePAM": "no",
            "PasswordAuthentication": "no",
            "KbdInteractiveAuthentication": "no",
            "PermitRootLogin": "prohibit-password",
            "PermitUserRC": "no",
            "LogLevel": "INFO",
        }
        (self.folder / "settings").write_text("".join(f"{name} {value}\n" for name, value in settings.items()))


class SshClient:
    """``ssh`` and ``scp`` programs in a folder, with settings of their own: OpenSSH ignores HOME, so tests cannot move ~/.ssh.

    They log in as this machine's user whatever name the caller gives, since a board's account exists on the board only.

    Attributes:
        folder: where the programs are.
        known_hosts: the client's file of host keys.
    """

    def __init__(self, folder: Path, servers: dict[str, BoardServer]) -> None:
        """``servers``: by the host name under which the client knows them, such as "raspberrypi.local"."""
        self.folder = folder
        self.known_hosts = folder / "known_hosts"
        self._servers = servers
        folder.mkdir(parents=True)
        self.trust()
        blocks = []
        for name, server in servers.items():
            blocks.append(
                f"Host {name}\n  HostName 127.0.0.1\n  Port {server.port}\n  IdentityFile {server.identity}\n"
            )
        # Addresses with a port reach the same servers without a name.
        blocks += [
            f'Match originalhost 127.0.0.1 exec "test %p = {server.port}"\n  IdentityFile {server.identity}\n'
            for server in servers.values()
        ]
        blocks.append(
            f"Host *\n  IdentitiesOnly yes\n  UserKnownHostsFile {self.known_hosts}\n  GlobalKnownHostsFile /dev/null\n"
        )
        (folder / "config").write_text("".join(blocks))
        user = getpass.getuser()
        self._program("ssh", f'exec /usr/bin/ssh -F {folder}/config -l {user} "$@"')
        self._program("scp", f'exec /usr/bin/scp -F {folder}/config -S {folder}/ssh "$@"')

    def trust(self) -> None:
        """Know the host keys that the servers have now."""
        lines = [f"[127.0.0.1]:{server.port} {server.host_key}\n" for server in self._servers.values()]
        self.known_hosts.write_text("".join(lines))

    @contextmanager
    def environment(self) -> Iterator[dict[str, str]]:
        """PATH of this process finds the client's programs first; yields the whole environment, for processes to start."""
        before = os.environ["PATH"]
        os.environ["PATH"] = f"{self.folder}{os.pathsep}{before}"
        try:
            yield dict(os.environ)
        finally:
            os.environ["PATH"] = before

    def _program(self, name: str, command: str) -> None:
        (self.folder / name).write_text(f"#!/bin/sh\n{command}\n")
        (self.folder / name).chmod(0o755)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _new_key(path: Path) -> Path:
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", str(path)]
    Path(f"{path}.pub").unlink(missing_ok=True)
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    return path


def _name(process: int) -> str:
    try:
        return Path(f"/proc/{process}/comm").read_text().strip()
    except OSError:
        return ""


def _children(parent: int) -> list[int]:
    found = []
    for folder in Path("/proc").iterdir():
        try:
            # The name in parentheses may hold spaces; the parent is the second word after it.
            if folder.name.isdigit() and int((folder / "stat").read_text().rpartition(")")[2].split()[1]) == parent:
                found.append(int(folder.name))
        except OSError:
            continue  # it ended meanwhile
    return found


def _sshd_children(parent: int) -> list[int]:
    """Privilege separation gives each connection several processes of the server."""
    own = [child for child in _children(parent) if "sshd" in _name(child)]
    return [process for child in own for process in (child, *_sshd_children(child))]


def _descendants(parent: int) -> list[int]:
    return [process for child in _children(parent) for process in (child, *_descendants(child))]


def _kill(processes: list[int]) -> None:
    for process in processes:
        try:
            os.kill(process, signal.SIGKILL)
        except ProcessLookupError:
            continue  # it ended meanwhile
