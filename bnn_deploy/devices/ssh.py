"""A machine that OpenSSH reaches: needs nothing on it but an ssh server, sh, and the tools of every Linux."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping

import numpy as np

from bnn_deploy.bundle.bundle import Bundle
from bnn_deploy.devices.base import TIMEOUT_SECONDS, Device, DeviceProfile, Session, profile_input
from bnn_deploy.devices.runner_report import read_profile
from bnn_deploy.devices.ssh_address import parse_address
from bnn_deploy.devices.ssh_board import Machine, SshBoard
from bnn_deploy.devices.system_state import SystemState
from bnn_deploy.errors import BundleError, DeviceError
from bnn_deploy.progress import ReportProgress, quiet
from bnn_deploy.runtime.arrays import check_threads, checked_arrays
from bnn_deploy.runtime.processor import MACHINES
from bnn_deploy.runtime.taps import checked_taps

# A number of the profile's JSON and what stands around it; and all that is not times: names of kernels, the system's state.
PROFILE_NUMBER_BYTES = 40
PROFILE_FIXED_BYTES = 4 * 2**20
STATE_BYTES = 2**20
NPY_HEADER_BYTES = 4096

ArrayForm = tuple[tuple[int, ...], np.dtype]


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
        from bnn_deploy.devices.probe import probe_program

        board = SshBoard(self._address, self.name, self.timeout)
        try:
            machine = board.machine()
            _check_system(machine, self.name)
            program = board.install(probe_program(machine.machine), "the probe", lambda machine: None)
            text = board.run(program, [], maximum=STATE_BYTES)
        finally:
            board.close()
        return {self.name: SystemState.from_json(text.decode(errors="replace"))}


class _SshSession(Session):
    def __init__(self, board: SshBoard, bundle: Bundle, threads: int, progress: ReportProgress) -> None:
        super().__init__(bundle, threads)
        check_threads(threads)
        self._board = board
        self._program = board.install(
            bundle.runner,
            f"the runner of {bundle.path}",
            lambda machine: _check_machine(machine, bundle, board.board),
            progress,
        )

    def run(self, array: np.ndarray) -> np.ndarray:
        """See ``Session.run``."""
        checked, batches = checked_arrays([array], self.bundle.inputs)
        (result,) = self._arrays([], checked[0], {}, {"output.npy": self._output(batches)})
        return result

    def run_tapped(
        self, array: np.ndarray, taps: np.ndarray, total_bytes: int, forced: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """See ``Session.run_tapped``."""
        checked, batches = checked_arrays([array], self.bundle.inputs)
        taps, forced = checked_taps(self.bundle, taps, total_bytes, forced, batches)
        arguments, files = ["--taps", "taps.npy", "--observed", "observed.npy"], {"taps.npy": taps}
        if forced is not None:
            arguments += ["--forced", "forced.npy"]
            files["forced.npy"] = forced
        observed = ((batches, total_bytes), np.dtype(np.uint8))
        results = {"output.npy": self._output(batches), "observed.npy": observed}
        output, values = self._arrays(arguments, checked[0], files, results)
        return output, values

    def profile(self, *, repeat: int = 20, warmup: int = 3) -> list[DeviceProfile]:
        """See ``Session.profile``."""
        array = profile_input(self.bundle, repeat=repeat, warmup=warmup)
        counts = ["--repeat", str(repeat), "--warmup", str(warmup), "--threads", str(self.threads)]
        arguments = ["--input", "input.npy", "--profile", "profile.json", *counts]
        maximum = PROFILE_FIXED_BYTES + repeat * (len(self.bundle.steps) + 1) * PROFILE_NUMBER_BYTES
        content = self._board.run(
            self._program, arguments, data=_npy(array), results=["profile.json"], maximum=maximum, threads=self.threads
        )
        return [read_profile(content.decode(errors="replace"), self.bundle, self._board.board)]

    def _output(self, batches: int) -> ArrayForm:
        output = self.bundle.outputs[0]
        return (batches * output.shape[0], *output.shape[1:]), np.dtype(output.dtype)

    def _arrays(
        self, arguments: list[str], array: np.ndarray, files: Mapping[str, np.ndarray], results: Mapping[str, ArrayForm]
    ) -> list[np.ndarray]:
        """Run the bundle's program on ``array`` and further files, and bring back the arrays that it writes."""
        sizes = [math.prod(shape) * dtype.itemsize for shape, dtype in results.values()]
        content = self._board.run(
            self._program,
            ["--input", "input.npy", "--output", "output.npy", "--threads", str(self.threads), *arguments],
            data=_npy(array),
            files={name: _npy(array) for name, array in files.items()},
            results=list(results),
            maximum=sum(sizes) + NPY_HEADER_BYTES * len(sizes),
            threads=self.threads,
        )
        return _read_arrays(content, list(results.values()), self._board.board)

    def close(self) -> None:
        """See ``Session.close``."""
        self._board.close()


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


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def _read_arrays(content: bytes, forms: list[ArrayForm], board: str) -> list[np.ndarray]:
    """The arrays of .npy files from the device, one after the other, whose headers must say what is expected before their numbers
    are believed."""
    buffer, arrays = io.BytesIO(content), []
    for index, (shape, dtype) in enumerate(forms):
        try:
            version = np.lib.format.read_magic(buffer)
            read_header = (
                np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            )
            found = read_header(buffer)
        except ValueError:
            found = None
        size = math.prod(shape) * dtype.itemsize
        data = buffer.read(size)
        ends = index + 1 < len(forms) or buffer.tell() == len(content)
        if found != (shape, False, dtype) or len(data) != size or not ends:
            raise DeviceError(
                f"{board}: the runner's answer is no array of shape {shape} and type {dtype} ({len(content)} bytes arrived); run "
                "the command again."
            )
        arrays.append(np.frombuffer(data, dtype).reshape(shape).copy())
    return arrays
