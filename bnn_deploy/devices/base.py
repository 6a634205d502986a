"""What every device can do: take a bundle, run it on arrays, time it, and tell what state it is in."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from types import TracebackType

import numpy as np

from bnn_deploy.bundle.bundle import Bundle
from bnn_deploy.devices.gpu_information import GpuInformation
from bnn_deploy.devices.system_state import SystemState
from bnn_deploy.errors import DeviceError, InputError
from bnn_deploy.progress import ReportProgress, quiet
from bnn_deploy.runtime.arrays import batch_size, checked_arrays

# One batch, copying included. A Raspberry Pi 3 takes seconds for 64 images of the largest model.
TIMEOUT_SECONDS = 600.0


@dataclass(frozen=True)
class DeviceProfile:
    """Times of one batch on one board.

    Attributes:
        board: name of the board: the device's, or that of one board among a device's several.
        step_seconds: float64 ``(repeat, steps)``, one column per kernel call.
        total_seconds: float64 ``(repeat,)``, the whole run.
        emulated: the times are an emulator's, not a processor's: good for shares at most, never a latency.
        kernel_set: which of the bundle's kernel sets the board's processor got; "" when the bundle has only one.
        before: the board's state before the warm-up runs, None if it does not say.
        after: its state right after the last repeat.
        peak_memory_bytes: largest resident size of the process that ran the network, None if unknown.
        copy_bytes_per_second: measured bandwidth of copying memory larger than most caches, read and written bytes together;
            None if not measured.
        gpu: what the network ran on, None for a processor.
    """

    board: str
    step_seconds: np.ndarray
    total_seconds: np.ndarray
    emulated: bool
    kernel_set: str = ""
    before: SystemState | None = None
    after: SystemState | None = None
    peak_memory_bytes: int | None = None
    copy_bytes_per_second: float | None = None
    gpu: GpuInformation | None = None


@dataclass(frozen=True)
class BoardUse:
    """What one board did in a session.

    Attributes:
        board: its name.
        images: images whose results it delivered; each image counts on one board only.
        seconds: wall-clock time that it spent on them, copying included.
        lost: why the session went on without it, or "".
    """

    board: str
    images: int
    seconds: float
    lost: str = ""


class Session(ABC):
    """A bundle on a device, ready to run; a context manager that leaves nothing behind on the device but caches."""

    def __init__(self, bundle: Bundle, threads: int) -> None:
        check_single(bundle)
        self.bundle = bundle
        self.threads = threads

    @abstractmethod
    def run(self, array: np.ndarray) -> np.ndarray:
        """Run the network.

        Args:
            array: leading dimension a multiple of the bundle's batch.

        Returns:
            the outputs of all batches, in order.

        Raises:
            InputError: wrong shape or dtype.
            BundleError: the device's processor cannot run the bundle, or a kernel failed.
            DeviceError: the device cannot be reached, or failed.
            ToolError: a program that the device needs is missing or failed.
        """

    def run_many(self, arrays: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """``run`` of each array, in their order; a device of several boards shares them out.

        Raises:
            as ``run``.
        """
        return map(self.run, arrays)

    @abstractmethod
    def run_tapped(
        self, array: np.ndarray, taps: np.ndarray, total_bytes: int, forced: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Run the network, copy out what its steps compute, and put other values in their place. All of it on one board.

        Args:
            array: leading dimension a multiple of the bundle's batch.
            taps: int64 (taps, 9), rows as in bnn_model.h.
            total_bytes: bytes of all tapped values of one batch, from the first to the end of the last.
            forced: uint8 (batches, total_bytes), what taps that force write; None if none of them does.

        Returns:
            the outputs of all batches, and uint8 (batches, total_bytes): what the steps computed from the inputs and the
            values that were forced before them; 0 where no tap is.

        Raises:
            as ``run``; InputError for taps and values of other shapes and dtypes. Taps that are no places of the network are an
            InputError, BundleError, DeviceError or ToolError, by who finds it.
        """

    @abstractmethod
    def profile(self, *, repeat: int = 20, warmup: int = 3) -> list[DeviceProfile]:
        """Time one batch of pseudo-random input, ``repeat`` times after ``warmup`` runs that do not count.

        Returns:
            one profile for each board.

        Raises:
            as ``run``; InputError for repeats outside 1..1000000 and warm-up runs outside 0..1000000.
        """

    def boards(self) -> tuple[BoardUse, ...]:
        """What each board did so far; empty for a device that is a single machine."""
        return ()

    def close(self) -> None:  # noqa: B027 - not every session has something to give back
        """Give back what the session holds; further calls are an error of the caller."""

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Device(ABC):
    """A place where bundles run.

    Attributes:
        name: what the user types after ``--device``.
    """

    name: str

    @abstractmethod
    def open(self, bundle: Bundle, threads: int = 1, progress: ReportProgress = quiet) -> Session:
        """Bring a bundle of one input and one output to the device.

        Args:
            bundle: what to run.
            threads: threads per inference, the caller's included.
            progress: told what is being copied.

        Raises:
            as ``Session.run``.
        """

    @abstractmethod
    def system_states(self) -> dict[str, SystemState | DeviceError]:
        """The state of each board right now; needs no bundle.

        Returns:
            by the board's name; of a device of several boards, those that give none have the reason instead.

        Raises:
            DeviceError: the device cannot be reached, or failed.
            ToolError: a program that the device needs is missing or failed.
        """

    def run(self, bundle: Bundle, array: np.ndarray, threads: int = 1, progress: ReportProgress = quiet) -> np.ndarray:
        """Run a network on any number of batches, a few at a time.

        Args:
            array: leading dimension a multiple of the bundle's batch.

        Returns:
            the outputs of all batches, in order.

        Raises:
            as ``Session.run``.
        """
        check_single(bundle)
        checked, _ = checked_arrays([array], bundle.inputs)
        size = batch_size(bundle.inputs[0].shape[1:], bundle.batch)
        results = []
        with self.open(bundle, threads, progress) as session:
            pieces = (checked[0][start : start + size] for start in range(0, len(array), size))
            for result in session.run_many(pieces):
                results.append(result)
                progress(f"{self.name}: {min(len(results) * size, len(array))} of {len(array)} images")
        return np.concatenate(results)


def check_single(bundle: Bundle) -> None:
    """Raises InputError unless the network has one input and one output."""
    if len(bundle.inputs) != 1 or len(bundle.outputs) != 1:
        raise InputError(
            f"The network of {bundle.path} has {len(bundle.inputs)} inputs and {len(bundle.outputs)} outputs; devices "
            "run networks with one of each, bnn_deploy.load and the C interface run the others."
        )


def profile_input(bundle: Bundle, *, repeat: int, warmup: int) -> np.ndarray:
    """One batch of standard normal numbers (small whole numbers for integer inputs), the same at every call.

    Raises:
        InputError: ``repeat`` is not 1..1000000 or ``warmup`` not 0..1000000.
    """
    check_single(bundle)
    if not 1 <= repeat <= 1_000_000 or not 0 <= warmup <= 1_000_000:
        raise InputError(
            f"A profile takes 1 to 1000000 repeats and 0 to 1000000 warm-up runs, found {repeat} and {warmup}."
        )
    specification = bundle.inputs[0]
    return np.random.default_rng(0).standard_normal(specification.shape).astype(specification.dtype)
