"""What every device can do: run a bundle on an array, and time it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np

from bnn_deploy.bundle import Bundle
from bnn_deploy.errors import InputError


@dataclass(frozen=True)
class DeviceProfile:
    """Times of one batch on a device.

    Attributes:
        step_seconds: float64 ``(repeat, steps)``, one column per kernel call.
        total_seconds: float64 ``(repeat,)``, the whole run.
        emulated: the times are an emulator's, not a processor's: good for shares at most, never a latency.
    """

    step_seconds: np.ndarray
    total_seconds: np.ndarray
    emulated: bool


class Device(ABC):
    """A place where bundles run."""

    name: str

    @abstractmethod
    def run(self, bundle: Bundle, array: np.ndarray, threads: int = 1) -> np.ndarray:
        """Run a network of one input and one output.

        Args:
            bundle: what to run.
            array: leading dimension a multiple of the bundle's batch.
            threads: threads per inference, the caller's included.

        Raises:
            InputError: wrong shape, dtype or number of threads.
            BundleError: the device's processor cannot run the bundle, or a kernel failed.
            ToolError: a program that the device needs is missing or failed.
        """

    @abstractmethod
    def profile(self, bundle: Bundle, threads: int = 1, *, repeat: int = 20, warmup: int = 3) -> DeviceProfile:
        """Time one batch of pseudo-random input, ``repeat`` times after ``warmup`` runs that do not count.

        Raises:
            as ``run``.
        """


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
