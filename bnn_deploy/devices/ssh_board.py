"""A machine at the end of an ssh connection: what it is, programs put on it once, runs that survive lost connections."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from bnn_deploy.devices import ssh_scripts
from bnn_deploy.devices.ssh_address import SshAddress
from bnn_deploy.devices.ssh_connection import ConnectionLost, RemoteResult, RemoteTimeout, SshConnection
from bnn_deploy.devices.ssh_failure import quoted
from bnn_deploy.errors import DeviceError, ToolError
from bnn_deploy.files import file_sha256
from bnn_deploy.progress import ReportProgress, quiet

# Pauses before the attempts after a lost connection: about as long as a switch or an access point takes to come back.
PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0)
# Small questions and each block of a copy. The longest work is the SHA-256 of a program: seconds even from a slow memory card.
ANSWER_SECONDS = 60.0
# The device stops a program itself only after we have given up, in case that we cannot tell it any more.
GRACE_SECONDS = 30
_FULL = ("No space left", "quota exceeded", "Disk quota", "File too large")

Result = TypeVar("Result")


@dataclass(frozen=True)
class Machine:
    """What a device says of itself.

    Attributes:
        system, machine: of ``uname -s`` and ``uname -m``.
        cpu_flags: of the first processor in /proc/cpuinfo.
    """

    system: str
    machine: str
    cpu_flags: frozenset[str]


@dataclass(frozen=True)
class _Place:
    machine: Machine
    name: str
    present: bool
    part_bytes: int


class SshBoard:
    """Commands for one machine; every method raises DeviceError for what goes wrong there."""

    def __init__(self, address: SshAddress, board: str, timeout: float) -> None:
        self.board = board
        self.timeout = timeout
        self._connection = SshConnection(address, board)

    def close(self) -> None:
        """End the connection."""
        self._connection.close()

    def install(
        self, program: Path, label: str, check: Callable[[Machine], None], progress: ReportProgress = quiet
    ) -> InstalledProgram:
        """Copy a static program there unless it is there already, going on where an earlier copy stopped.

        Args:
            program: the file here.
            label: how errors name it.
            check: raises if the program is not for this machine, before anything is copied.
            progress: told how much is copied.

        Raises:
            DeviceError: also if its folders are full, read-only or not for programs.
        """
        digest = file_sha256(program)
        return self._persist(lambda: self._install(program, label, digest, check, progress))

    def machine(self) -> Machine:
        """What it is."""
        return self._persist(lambda: self._look("0" * 64).machine)

    def _persist(self, action: Callable[[], Result], seconds: float = math.inf) -> Result:
        """``action()``, again after a pause whenever the connection is lost, but not longer than some seconds."""
        end = time.monotonic() + seconds
        for pause in (*PAUSES, None):
            try:
                return action()
            except ConnectionLost as lost:
                if pause is None or time.monotonic() + pause >= end:
                    reason = quoted(str(lost).removeprefix(f"{self.board}: "))
                    raise DeviceError(
                        f"{self.board}: the connection was lost and {len(PAUSES)} attempts did not bring it back ({reason}); "
                        "check the board's power and network, then run the command again."
                    ) from lost
                time.sleep(pause)
        raise AssertionError("unreachable: the last pause is None")

    def run(
        self,
        program: InstalledProgram,
        arguments: list[str],
        *,
        files: Mapping[str, bytes] | None = None,
        results: Sequence[str] = ("printed",),
        maximum: int,
        threads: int = 1,
    ) -> bytes:
        """Run a program in a folder of its own, which goes away whatever happens.

        Args:
            program: what to run.
            arguments: of the program.
            files: what lies in its folder, by names of letters and a dot; ``input.npy`` is empty if it is not among them.
            results: the files that it writes, ``printed`` for its stdout; they come back one after the other.
            maximum: bytes that the results may have.
            threads: that the program uses, for a limit on the processor's time.

        Raises:
            ToolError: the program failed; quotes what it says.
        """
        limit = str((math.ceil(self.timeout) + GRACE_SECONDS) * threads)
        others = {name: content for name, content in (files or {}).items() if name != "input.npy"}
        sizes = " ".join(f"{name}:{len(content)}" for name, content in others.items())
        data = b"".join(others.values()) + (files or {}).get("input.npy", b"")
        words = [program.place, program.digest[:32], str(len(data)), sizes, limit, " ".join(results), *arguments]
        end = time.monotonic() + self.timeout
        return self._persist(lambda: self._run(program, words, data, maximum, end), self.timeout)

    def _run(self, program: InstalledProgram, words: list[str], data: bytes, maximum: int, end: float) -> bytes:
        try:
            answer = self._connection.execute(
                ssh_scripts.RUN, words, data=[data], hold=True, maximum=maximum + 4096, seconds=end - time.monotonic()
            )
        except RemoteTimeout:
            raise DeviceError(
                f"{self.board}: {program.label} did not finish in {self.timeout:g} s and was stopped; give it more with --timeout."
            ) from None
        line, _, content = answer.output.partition(b"\n")
        key, _, value = line.decode(errors="replace").partition("=")
        if key == "problem":
            if value == "missing":
                raise DeviceError(f"{self.board}: {program.label} was removed there meanwhile; run the command again.")
            raise self._trouble(value)
        if answer.status != 0 or key != "status":
            # The script did not come to its end: its shell was killed, or something that it needs is not there.
            raise self._trouble(answer.said or f"the shell ended with exit status {answer.status}")
        if value != "0":
            raise ToolError(
                f"{_capital(program.label)} on {self.board} {_failure(value, content.decode(errors='replace'))}"
            )
        if len(content) > maximum:
            raise DeviceError(
                f"{self.board}: {program.label} gave {len(content)} bytes, more than the {maximum} that it can; run it again."
            )
        return content

    def _look(self, digest: str) -> _Place:
        answer = self._execute(ssh_scripts.OPEN, [digest[:32], digest])
        lines = [line.partition("=") for line in answer.output.decode(errors="replace").splitlines()]
        facts = {key: value.strip() for key, _, value in reversed(lines)}  # the first of a key counts
        flags = frozenset(facts.get("flags", "").partition(":")[2].lower().split())
        machine = Machine(quoted(facts.get("system", "")), quoted(facts.get("machine", "")), flags)
        name, part = facts.get("place", ""), facts.get("part", "0")
        if name not in ssh_scripts.PLACES:
            refused = [value for key, _, value in lines if key == "refused"]
            raise self._trouble(refused[0] if refused else answer.said or "no folder can be written to")
        return _Place(machine, name, facts.get("present") == "yes", int(part) if part.isdecimal() else 0)

    def _install(
        self, program: Path, label: str, digest: str, check: Callable[[Machine], None], progress: ReportProgress
    ) -> InstalledProgram:
        total = program.stat().st_size
        # A part that turns out altered is removed there, so the second time copies all of it.
        for _ in range(2):
            place = self._look(digest)
            check(place.machine)
            installed = InstalledProgram(label, digest, place.name)
            if place.present:
                return installed
            blocks = min(place.part_bytes, total) // ssh_scripts.BLOCK_BYTES

            def content(start: int = blocks * ssh_scripts.BLOCK_BYTES) -> Iterator[bytes]:
                with open(program, "rb") as file:
                    file.seek(start)
                    while data := file.read(ssh_scripts.BLOCK_BYTES):
                        yield data
                        progress(f"{self.board}: copied {file.tell() / 1e6:.1f} of {total / 1e6:.1f} MB")

            words = [place.name, digest[:32], str(blocks), str(total), digest]
            answer = self._execute(ssh_scripts.COPY, words, content())
            key, _, value = answer.output.decode(errors="replace").strip().partition("=")
            if key == "done":
                return installed
            if key == "short":
                raise ConnectionLost(f"{value} of {total} bytes arrived")
            if value != "altered":
                raise self._trouble(value or answer.said or "the copy failed")
        raise DeviceError(
            f"{self.board}: {installed.label} arrives there altered (its SHA-256 is another one); check the board's memory card "
            "and memory, then run the command again."
        )

    def _execute(self, script: str, words: list[str], data: Iterable[bytes] = ()) -> RemoteResult:
        try:
            return self._connection.execute(script, words, data=data, seconds=ANSWER_SECONDS, renew=True)
        except RemoteTimeout:
            raise DeviceError(
                f"{self.board}: the board took nothing and answered nothing for {ANSWER_SECONDS:g} s; look at "
                "its load and its memory card, then run the command again."
            ) from None

    def _trouble(self, reason: str) -> DeviceError:
        text = quoted(reason)
        if any(phrase in text for phrase in _FULL):
            advice = "make room there, or remove old programs from ~/.cache/bnn-deploy and /tmp"
        elif "Read-only file system" in text:
            advice = "mount it for writing, or restart the board and check its memory card"
        elif "Permission denied" in text:
            advice = "programs must be allowed in ~/.cache or /tmp there: change the owner, or mount one of them without noexec"
        elif "not found" in text:
            advice = "install coreutils or busybox there (docs/devices.md lists the tools)"
        else:
            advice = "docs/devices.md says what the board needs"
        return DeviceError(f"{self.board}: the program cannot be put or run there ({text}); {advice}.")


@dataclass(frozen=True)
class InstalledProgram:
    """A program on a device.

    Attributes:
        label: how errors name it.
        digest: its SHA-256.
        place: which folder of the device it is in, of ``ssh_scripts.PLACES``.
    """

    label: str
    digest: str
    place: str


def _failure(status: str, said: str) -> str:
    last = quoted(said, last=True)
    if status == "137":
        return "was killed, most likely because the board's memory ran out; close other programs there, or use a smaller batch."
    if status in ("126", "127"):
        return (
            f"cannot be started there ({last or f'exit status {status}'}); docs/devices.md says what the board needs."
        )
    if status == "152":  # SIGXCPU
        return "did not finish in time and was stopped; give it more with --timeout."
    return f"failed: {last or f'exit status {quoted(status)}'}."


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
