"""A machine that OpenSSH reaches: needs nothing on it but an ssh server, sh, and the tools of every Linux."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bnn_deploy.bundle.bundle import Bundle
from bnn_deploy.devices.base import TIMEOUT_SECONDS, Device, Session
from bnn_deploy.devices.probe import probe_program
from bnn_deploy.devices.runner_session import RunnerSession
from bnn_deploy.devices.ssh_address import parse_address
from bnn_deploy.devices.ssh_board import Machine, SshBoard
from bnn_deploy.devices.system_state import SystemState
from bnn_deploy.errors import BundleError, DeviceError
from bnn_deploy.progress import ReportProgress, quiet
from bnn_deploy.runtime.processor import MACHINES

STATE_BYTES = 2**20


class SshDevice(Device):
    """``ssh://[user@]host[:port]``: the bundle's static runner on another machine."""

    def __init__(self, name: str, timeout: float = TIMEOUT_SECONDS) -> None:
        self.name = name
        self.timeout = timeout
        self._address = parse_address(name)

    def open(self, bundle: Bundle, threads: int = 1, progress: ReportProgress = quiet) -> Session:
        """See ``Device.open``."""
        board = SshBoard(self._address, self.name, self.timeout)
        try:
            return _SshSession(board, bundle, threads, progress)
        except BaseException:
            board.close()
            raise

    def system_states(self) -> dict[str, SystemState | DeviceError]:
        """See ``Device.system_states``."""
        board = SshBoard(self._address, self.name, self.timeout)
        try:
            machine = board.machine()
            _check_system(machine, self.name)
            program = board.install(probe_program(machine.machine), "the probe", lambda machine: None)
            text = board.run(program, [], maximum=STATE_BYTES)
        finally:
            board.close()
        return {self.name: SystemState.from_json(text.decode(errors="replace"))}


class _SshSession(RunnerSession):
    def __init__(self, board: SshBoard, bundle: Bundle, threads: int, progress: ReportProgress) -> None:
        super().__init__(bundle, threads)
        self.board = board.board
        self._machine = board
        self._program = board.install(
            bundle.runner,
            f"the runner of {bundle.path}",
            lambda machine: _check_machine(machine, bundle, board.board),
            progress,
        )

    def call(self, arguments: list[str], files: Mapping[str, bytes], results: Sequence[str], maximum: int) -> bytes:
        """See ``RunnerSession.call``."""
        return self._machine.run(
            self._program, arguments, files=files, results=results, maximum=maximum, threads=self.threads
        )

    def close(self) -> None:
        """See ``Session.close``."""
        self._machine.close()


def _check_system(machine: Machine, board: str) -> None:
    if machine.system != "Linux":
        raise DeviceError(
            f"{board}: the machine runs {machine.system or 'an unknown system'}, expected Linux; bundles run on Linux only."
        )


def _check_machine(machine: Machine, bundle: Bundle, board: str) -> None:
    """Raises BundleError unless the machine's kernel and processor run the bundle."""
    _check_system(machine, board)
    found, made_for = MACHINES.get(machine.machine.lower()), f"{bundle.architecture} (target {bundle.target})"
    if found is None:
        # Words of uname for the 32-bit kernels of the processors that bundles are for.
        if machine.machine.lower().startswith(("arm", "i386", "i486", "i586", "i686")):
            advice = "install the board's 64-bit system, if its processor has 64 bits"
        else:
            advice = f"bundles are for {' or '.join(sorted(set(MACHINES.values())))} only"
        kind = "32-bit" if advice.startswith("install") else "unknown"
        raise BundleError(
            f"{board}: the machine has a kernel for the {kind} processor {machine.machine or '(not told)'}, and the bundle "
            f"{bundle.path} is for {made_for}; {advice}."
        )
    if found != bundle.architecture:
        target = "arm64" if found == "arm64" else "x86-64-v3"
        raise BundleError(
            f"{board}: the machine is {found}, and the bundle {bundle.path} is for {made_for}; compile the model for it, such as "
            f"with `--target {target}`."
        )
    missing = bundle.missing_cpu_flags(machine.cpu_flags)
    if missing and machine.cpu_flags:
        target = "arm64" if found == "arm64" else "x86-64-v3"
        raise BundleError(
            f"{board}: the processor lacks the instructions {', '.join(missing)} that the bundle {bundle.path} for target "
            f"{bundle.target} needs; compile the model for `--target {target}`."
        )
