"""One connection of OpenSSH's client, over which shell scripts run on another machine.

The user's own configuration, keys and known_hosts count. Nothing is ever asked, and no host key is ever accepted here.
"""

from __future__ import annotations

import os
import selectors
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bnn_deploy.devices.ssh_address import SshAddress
from bnn_deploy.devices.ssh_failure import CONNECT_SECONDS, failure_sentence, may_pass, quoted
from bnn_deploy.errors import DeviceError, ToolError

OPTIONS = {
    "BatchMode": "yes",
    "StrictHostKeyChecking": "yes",
    "UpdateHostKeys": "no",  # nothing of the user's files changes
    "ConnectTimeout": str(CONNECT_SECONDS),
    "ConnectionAttempts": "1",
    "ServerAliveInterval": "5",
    "ServerAliveCountMax": "3",
    "LogLevel": "ERROR",
    "ClearAllForwardings": "yes",
    "ForwardAgent": "no",
    "ForwardX11": "no",
    "PermitLocalCommand": "no",
    "RemoteCommand": "none",
    "ControlPersist": "no",
}

# A login shell may greet before our script runs. What the script writes follows this line.
BEGIN = b"bnn-deploy:begin\n"
GREETING_BYTES = 64 * 1024
SAID_BYTES = 16 * 1024
CHUNK_BYTES = 64 * 1024
# ssh appends 17 characters to the socket's name while it makes it, and the system allows 107 (103 on macOS).
SOCKET_PATH_BYTES = 85


class ConnectionLost(Exception):
    """The connection went away in the middle of something; a second attempt may work."""


class RemoteTimeout(Exception):
    """The other machine did not finish, or take our data, in time."""


@dataclass(frozen=True)
class RemoteResult:
    """What a script left: its exit status, stdout after ``BEGIN``, and the end of stderr."""

    status: int
    output: bytes
    said: str


class SshConnection:
    """A connection that is made when it is needed, and again after it was lost.

    Attributes:
        board: how errors name the machine.
    """

    def __init__(self, address: SshAddress, board: str) -> None:
        self.board = board
        self._address = address
        self._program = find_ssh()
        self._folder = _private_folder()
        self._master: subprocess.Popen[bytes] | None = None
        self._connected_before = False

    def execute(
        self,
        script: str,
        arguments: Sequence[str] = (),
        *,
        data: Iterable[bytes] = (),
        hold: bool = False,
        maximum: int = 64 * 1024,
        seconds: float,
        renew: bool = False,
    ) -> RemoteResult:
        """Run a script by the other machine's ``sh``.

        Args:
            script: of one line, for any POSIX shell.
            arguments: ``$1`` and following.
            data: the script's stdin.
            hold: keep stdin open after ``data``, so that its end tells the script that nobody waits any more.
            maximum: bytes of stdout that are read.
            seconds: how long it may take; with ``renew`` since the last data went out.

        Raises:
            ConnectionLost: the connection dropped, or could not be made again.
            RemoteTimeout: it took longer.
            DeviceError: the machine cannot be reached, or answered with more than ``maximum`` bytes or not by our script.
        """
        self._connect()
        remote = shlex.join(["sh", "-c", script, "sh", *arguments])
        process = subprocess.Popen(
            [*self._words("ControlMaster=no"), *self._address.words(), remote],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=_environment(),
            start_new_session=True,
        )
        try:
            output, said = self._communicate(process, iter(data), hold, maximum, seconds, renew)
            status = process.wait()
        finally:
            _end(process)
        if status == 255:  # ssh's own failures, and a script that a signal ended
            raise ConnectionLost(quoted(said, last=True) or "it closed without a reason")
        greeting, begin, answer = output.partition(BEGIN)
        if not begin:
            text = quoted(greeting.decode(errors="replace") + said)
            raise DeviceError(
                f"{self.board}: the login shell there does not run commands (exit status {status}"
                f"{', it says: ' if text else ''}{text}); use an account with an ordinary shell."
            )
        return RemoteResult(status, answer, said)

    def close(self) -> None:
        """End the connection."""
        if self._master is not None:
            _end(self._master)
            self._master = None
        shutil.rmtree(self._folder, ignore_errors=True)

    def _words(self, *options: str) -> list[str]:
        pairs = [f"{name}={value}" for name, value in OPTIONS.items()] + list(options)
        return [self._program, "-T", "-S", str(self._socket), *(word for pair in pairs for word in ("-o", pair))]

    @property
    def _socket(self) -> Path:
        return self._folder / "s"

    def _connect(self) -> None:
        """Start the process whose connection all scripts share, unless it is there."""
        if self._master is not None and self._master.poll() is None:
            return
        if self._master is not None:
            _end(self._master)
        self._socket.unlink(missing_ok=True)
        with open(self._folder / "said", "w+b") as said:
            # It runs `cat` there on a pipe from here, so it ends with this process, however that ends.
            self._master = subprocess.Popen(
                [*self._words("ControlMaster=yes"), *self._address.words(), "exec cat"],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=said,
                env=_environment(),
                start_new_session=True,
            )
            # ssh limits the steps of its own; this limit is for what it does not, such as a server stopped while it logs in.
            deadline = time.monotonic() + 3 * CONNECT_SECONDS
            while not self._socket.exists() and self._master.poll() is None and time.monotonic() < deadline:
                time.sleep(0.01)
            if self._socket.exists():
                self._connected_before = True
                return
            late = self._master.poll() is None
            _end(self._master)
            said.seek(0)
            text = "timed out" if late else said.read(SAID_BYTES).decode(errors="replace")
        if self._connected_before and may_pass(text):
            raise ConnectionLost(failure_sentence(self.board, self._address, text))
        raise DeviceError(failure_sentence(self.board, self._address, text))

    def _communicate(
        self,
        process: subprocess.Popen[bytes],
        data: Iterator[bytes],
        hold: bool,
        maximum: int,
        seconds: float,
        renew: bool,
    ) -> tuple[bytes, str]:
        assert process.stdin is not None and process.stdout is not None and process.stderr is not None
        output, said = bytearray(), bytearray()
        pending = memoryview(b"")
        deadline = time.monotonic() + seconds
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdin, selectors.EVENT_WRITE)
            selector.register(process.stdout, selectors.EVENT_READ, output)
            selector.register(process.stderr, selectors.EVENT_READ, said)
            for pipe in (process.stdin, process.stdout, process.stderr):
                os.set_blocking(pipe.fileno(), False)
            reading = 2
            while reading:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise RemoteTimeout
                for key, _ in selector.select(min(left, 1.0)):
                    if key.fileobj is process.stdin:
                        try:
                            pending = pending or memoryview(next(data, b""))
                            if pending:
                                pending = pending[os.write(key.fd, pending[:CHUNK_BYTES]) :]
                                deadline = time.monotonic() + seconds if renew else deadline
                                continue
                        except BlockingIOError:
                            continue
                        except BrokenPipeError:
                            hold = False  # its output says why it takes no more
                        selector.unregister(process.stdin)
                        if not hold:
                            process.stdin.close()
                        continue
                    try:
                        found = os.read(key.fd, CHUNK_BYTES)
                    except BlockingIOError:
                        continue
                    key.data.extend(found)
                    if not found:
                        selector.unregister(key.fileobj)
                        reading -= 1
                if len(output) > maximum + GREETING_BYTES:
                    raise DeviceError(
                        f"{self.board}: the answer is longer than {maximum} bytes, so it is not from our program; look at what "
                        "the account's login scripts print there."
                    )
                del said[:-SAID_BYTES]
        return bytes(output), said.decode(errors="replace")


def find_ssh() -> str:
    """Path of OpenSSH's client.

    Raises:
        ToolError: it is not installed.
    """
    path = shutil.which("ssh")
    if path is None:
        raise ToolError(
            "The program ssh is not installed on this machine; on Debian and Ubuntu, run `apt-get install openssh-client`."
        )
    return path


def _private_folder() -> Path:
    for parent in (tempfile.gettempdir(), "/tmp"):
        if len(os.fsencode(parent)) + 24 <= SOCKET_PATH_BYTES:
            return Path(tempfile.mkdtemp(prefix="bnn-deploy-", dir=parent))
    raise AssertionError("unreachable: /tmp is short")


def _environment() -> dict[str, str]:
    # Messages in English, which ssh_failure.py reads; and no window that asks for a passphrase.
    return {**os.environ, "LC_ALL": "C", "SSH_ASKPASS_REQUIRE": "never"}


def _end(process: subprocess.Popen[bytes]) -> None:
    """The process and its pipes are gone when this returns."""
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None and not pipe.closed:
            try:
                pipe.close()
            except OSError:
                continue  # what was not sent has nobody to go to
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(2)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
