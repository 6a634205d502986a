"""A bundle's runner wherever it runs: its command line, the files that it reads, and what it writes, which is not trusted."""

from __future__ import annotations

import io
import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bnn_deploy.bundle.bundle import Bundle
from bnn_deploy.devices.base import DeviceProfile, Session, profile_input
from bnn_deploy.devices.runner_report import read_profile
from bnn_deploy.errors import DeviceError
from bnn_deploy.runtime.arrays import check_threads, checked_arrays
from bnn_deploy.runtime.taps import checked_taps

# A number of the profile's JSON and what stands around it; and all that is not times: names of kernels, the system's state.
PROFILE_NUMBER_BYTES = 40
PROFILE_FIXED_BYTES = 4 * 2**20
NPY_HEADER_BYTES = 4096

ArrayForm = tuple[tuple[int, ...], np.dtype[Any]]


class RunnerSession(Session):
    """A session whose runs are calls of the bundle's runner.

    Attributes:
        board: how reports and errors name the machine.
        emulated: times are an emulator's.
    """

    board: str
    emulated = False

    def __init__(self, bundle: Bundle, threads: int) -> None:
        super().__init__(bundle, threads)
        check_threads(threads)

    @abstractmethod
    def call(self, arguments: list[str], files: Mapping[str, bytes], results: Sequence[str], maximum: int) -> bytes:
        """Run the runner in a folder of its own.

        Args:
            arguments: of the runner.
            files: what lies in the folder by its names, ``input.npy`` among it.
            results: the files that the runner writes there.
            maximum: bytes that these may have, all together.

        Returns:
            the contents of the results, one after the other.
        """

    def run(self, array: np.ndarray) -> np.ndarray:
        """See ``Session.run``."""
        checked, batches = checked_arrays([array], self.bundle.inputs)
        (result,) = self._arrays([], {"input.npy": checked[0]}, {"output.npy": self._output(batches)})
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
        results = {
            "output.npy": self._output(batches),
            "observed.npy": ((batches, total_bytes), np.dtype(np.uint8)),
        }
        output, observed = self._arrays(arguments, {**files, "input.npy": checked[0]}, results)
        return output, observed

    def profile(self, *, repeat: int = 20, warmup: int = 3) -> list[DeviceProfile]:
        """See ``Session.profile``."""
        array = profile_input(self.bundle, repeat=repeat, warmup=warmup)
        arguments = ["--profile", "profile.json", "--repeat", str(repeat), "--warmup", str(warmup)]
        maximum = PROFILE_FIXED_BYTES + repeat * (len(self.bundle.steps) + 1) * PROFILE_NUMBER_BYTES
        content = self._call(arguments, {"input.npy": array}, ["profile.json"], maximum)
        return [read_profile(content.decode(errors="replace"), self.bundle, self.board, emulated=self.emulated)]

    def _output(self, batches: int) -> ArrayForm:
        output = self.bundle.outputs[0]
        return (batches * output.shape[0], *output.shape[1:]), np.dtype(output.dtype)

    def _arrays(
        self, arguments: list[str], files: Mapping[str, np.ndarray], results: Mapping[str, ArrayForm]
    ) -> list[np.ndarray]:
        """Run the network on the files, and give the arrays that the runner writes."""
        forms = list(results.values())
        maximum = sum(_size(form) + NPY_HEADER_BYTES for form in forms)
        content = self._call(["--output", "output.npy", *arguments], files, list(results), maximum)
        return read_arrays(content, forms, self.board)

    def _call(
        self, arguments: list[str], files: Mapping[str, np.ndarray], results: Sequence[str], maximum: int
    ) -> bytes:
        common = ["--input", "input.npy", "--threads", str(self.threads)]
        return self.call([*common, *arguments], {name: _npy(array) for name, array in files.items()}, results, maximum)


def read_arrays(content: bytes, forms: Sequence[ArrayForm], board: str) -> list[np.ndarray]:
    """The arrays of .npy files, one after the other.

    Args:
        content: of the files.
        forms: what their headers must say before their numbers are believed: shape and dtype.
        board: how errors name the machine that they come from.

    Raises:
        DeviceError: they are something else.
    """
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
        size = _size((shape, dtype))
        data = buffer.read(size)
        ends = index + 1 < len(forms) or buffer.tell() == len(content)
        if found != (shape, False, dtype) or len(data) != size or not ends:
            raise DeviceError(
                f"{board}: the runner's answer is no array of shape {shape} and type {dtype} ({len(content)} bytes arrived); run "
                "the command again."
            )
        arrays.append(np.frombuffer(data, dtype).reshape(shape).copy())
    return arrays


def _size(form: ArrayForm) -> int:
    shape, dtype = form
    return math.prod(shape) * dtype.itemsize


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()
