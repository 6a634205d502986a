"""Runs a bundle in this process: numpy arrays in and out, through the C interface of its library."""

from __future__ import annotations

import ctypes
import tempfile
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bnn_deploy.bundle.bundle import Bundle
from bnn_deploy.errors import BnnDeployError, BundleError, DeviceError, InputError
from bnn_deploy.plan import TensorSpecification
from bnn_deploy.runtime.arrays import check_threads, checked_arrays
from bnn_deploy.runtime.processor import check_processor
from bnn_deploy.runtime.status import Status
from bnn_deploy.runtime.taps import OWN_TAPS, checked_taps


class _Tensor(ctypes.Structure):
    """``bnn_tensor`` of bnn_model.h."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("dtype", ctypes.c_char_p),
        ("rank", ctypes.c_size_t),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("bytes", ctypes.c_size_t),
    )


class _DeviceInfo(ctypes.Structure):
    """``bnn_device_info`` of bnn_model.h."""

    _fields_ = (
        ("name", ctypes.c_char * 256),
        ("compute_capability", ctypes.c_int32),
        ("multiprocessors", ctypes.c_int32),
        ("khz", ctypes.c_int32),
        ("memory_khz", ctypes.c_int32),
        ("memory_bus_bits", ctypes.c_int32),
        ("memory_bytes", ctypes.c_int64),
        ("cuda_version", ctypes.c_int32),
    )


class Model:
    """A network ready to run. Calls from several threads take turns.

    Args:
        bundle: folder of a bundle, or an opened one.
        threads: threads that one inference uses, the caller's included.

    Raises:
        BundleError: the bundle is missing, damaged or of a newer format, or this processor cannot run it.
        DeviceError: it is for a GPU, and this machine's is missing, too old or has no memory left, or its driver is.
        InputError: ``threads`` is not from 1 to 256.
    """

    def __init__(self, bundle: str | Path | Bundle, threads: int = 1) -> None:
        self.bundle = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
        check_threads(threads)
        check_processor(self.bundle)
        self.inputs = self.bundle.inputs
        self.outputs = self.bundle.outputs
        self._lock = threading.Lock()
        self._library = _load_library(self.bundle)
        handle = ctypes.c_void_p()
        status = self._library.bnn_create(int(threads), ctypes.byref(handle))
        _check_gpu_status(status, self._library, self.bundle)
        self._check(status)
        self._handle = handle
        self.close = weakref.finalize(self, self._library.bnn_destroy, handle)

    @property
    def kernel_set(self) -> str:
        """Which of the bundle's kernel sets this processor gets; "" if there is only one."""
        # Libraries of before have one set, and no such function.
        return self._library.bnn_kernel_set().decode() if hasattr(self._library, "bnn_kernel_set") else ""

    def __call__(self, *arrays: np.ndarray) -> np.ndarray | tuple[np.ndarray, ...]:
        """Run the network.

        Args:
            arrays: one per input, of its dtype; the leading dimension is a multiple of the bundle's batch.

        Returns:
            one array per output (not in a tuple when there is only one), as many batches as given.

        Raises:
            InputError: wrong shape or dtype.
            BundleError: a kernel reported failure.
            DeviceError: the GPU failed.
        """
        checked, batches = checked_arrays(arrays, self.inputs)
        results = [np.empty((batches * out.shape[0], *out.shape[1:]), out.dtype) for out in self.outputs]
        with self._lock:
            for batch in range(batches):
                inputs = _pointers(checked, self.inputs, batch)
                outputs = _pointers(results, self.outputs, batch)
                self._check(self._library.bnn_run(self._handle, inputs, outputs))
        return results[0] if len(results) == 1 else tuple(results)

    def run_tapped(
        self, *arrays: np.ndarray, taps: np.ndarray, total_bytes: int, forced: np.ndarray | None = None
    ) -> tuple[np.ndarray | tuple[np.ndarray, ...], np.ndarray]:
        """Run the network, copy out what its steps compute, and put other values in their place.

        Args:
            arrays: as of a call.
            taps: int64 (taps, 9), rows as in bnn_model.h.
            total_bytes: bytes of all tapped values of one batch, from the first to the end of the last.
            forced: uint8 (batches, total_bytes), what taps that force write; None if none of them does.

        Returns:
            what a call gives, and uint8 (batches, total_bytes): what the steps computed from the inputs and the values that were
            forced before them; 0 where no tap is.

        Raises:
            InputError: wrong shape or dtype, or a tap that is no place of this network.
            BundleError: a kernel reported failure, or the bundle is of before taps.
            DeviceError: the GPU failed.
        """
        checked, batches = checked_arrays(arrays, self.inputs)
        taps, forced = checked_taps(self.bundle, taps, total_bytes, forced, batches)
        if not hasattr(self._library, "bnn_run_tapped"):
            raise BundleError(f"The bundle {self.bundle.path} is too old for taps; compile the model again.")
        results = [np.empty((batches * out.shape[0], *out.shape[1:]), out.dtype) for out in self.outputs]
        observed = np.zeros((batches, total_bytes), np.uint8)
        with self._lock:
            for batch in range(batches):
                status = self._library.bnn_run_tapped(
                    self._handle,
                    _pointers(checked, self.inputs, batch),
                    _pointers(results, self.outputs, batch),
                    taps.ctypes.data,
                    len(taps),
                    observed.ctypes.data + batch * total_bytes,
                    None if forced is None else forced.ctypes.data + batch * total_bytes,
                    total_bytes,
                )
                if status == Status.ARGUMENT:
                    raise InputError(
                        f"One of {len(taps)} taps is no place of the network of {self.bundle.path}; {OWN_TAPS}."
                    )
                self._check(status)
        return (results[0] if len(results) == 1 else tuple(results)), observed

    def profile(self, *arrays: np.ndarray, repeat: int, warmup: int) -> tuple[np.ndarray, np.ndarray]:
        """Time the first batch of the arrays, step by step, on the monotonic clock.

        Returns:
            float64 seconds: ``(repeat, steps)`` of each kernel call, and ``(repeat,)`` of the whole run.

        Raises:
            InputError: wrong shape or dtype.
            BundleError: a kernel reported failure.
            DeviceError: the GPU failed.
        """
        checked, _ = checked_arrays(arrays, self.inputs)
        results = [np.empty(out.shape, out.dtype) for out in self.outputs]
        inputs, outputs = _pointers(checked, self.inputs, 0), _pointers(results, self.outputs, 0)
        step_seconds = np.zeros((repeat, len(self.bundle.steps)))
        total_seconds = np.zeros(repeat)
        with self._lock:
            for _ in range(warmup):
                self._check(self._library.bnn_run(self._handle, inputs, outputs))
            for row in range(repeat):
                steps, total = step_seconds[row].ctypes.data, total_seconds[row:].ctypes.data
                self._check(self._library.bnn_run_timed(self._handle, inputs, outputs, steps, total))
        return step_seconds, total_seconds

    def _check(self, status: int) -> None:
        if status == Status.KERNEL:
            step = self.bundle.steps[self._library.bnn_failed_step(self._handle)]
            raise BundleError(f"Kernel {step.kernel} of layer {step.layer} reported failure in {self.bundle.path}.")
        if status == Status.DEVICE:
            reason = self._library.bnn_device_error().decode(errors="replace")
            raise DeviceError(f"The network of {self.bundle.path} failed on the GPU: {reason}.")
        if status != Status.OK:
            text = self._library.bnn_status_text(status).decode()
            raise BnnDeployError(f"The network of {self.bundle.path} cannot run: {text}.")


def check_gpu(bundle: Bundle) -> None:
    """Refuse a bundle for a GPU that this machine does not have, without any work on the GPU; other bundles pass.

    Raises:
        BundleError: its library cannot be loaded.
        DeviceError: names what is missing and what to do.
    """
    if bundle.gpu is None:
        return
    library, found = _load_library(bundle), _DeviceInfo()
    _check_gpu_status(library.bnn_device(ctypes.byref(found)), library, bundle)
    needed = int(bundle.gpu["compute_capability"].replace(".", ""))
    if 0 <= found.compute_capability < needed:
        raise DeviceError(
            f"The bundle {bundle.path} needs an NVIDIA GPU of compute capability {bundle.gpu['compute_capability']} or newer: "
            f"{found.name.decode(errors='replace')} has {found.compute_capability / 10}; compile the model with --target cuda "
            f"--arch sm_{found.compute_capability}."
        )


def _check_gpu_status(status: int, library: ctypes.CDLL, bundle: Bundle) -> None:
    if status == Status.DEVICE and bundle.gpu is not None:
        raise DeviceError(
            f"The bundle {bundle.path} needs an NVIDIA GPU of compute capability {bundle.gpu['compute_capability']} or newer: "
            f"{library.bnn_device_error().decode(errors='replace')}."
        )


def _pointers(
    arrays: list[np.ndarray], tensors: tuple[TensorSpecification, ...], batch: int
) -> ctypes.Array[ctypes.c_void_p]:
    places = [array.ctypes.data + batch * tensor.bytes for array, tensor in zip(arrays, tensors, strict=True)]
    return (ctypes.c_void_p * len(places))(*places)


def load(bundle: str | Path, threads: int = 1) -> Model:
    """Load a compiled bundle for this machine.

    Args:
        bundle: folder written by ``bnn-deploy compile``.
        threads: worker threads that one inference may use.

    Returns:
        A callable: ``load(bundle)(array) -> array``, float32 in and out, shapes as in the bundle's manifest.

    Raises:
        BundleError: the bundle is missing, altered, of a newer format, or for another processor.
    """
    return Model(bundle, threads=threads)


def _load_library(bundle: Bundle) -> ctypes.CDLL:
    # The dynamic loader knows libraries by the name they were opened with: under its own name, a bundle compiled again
    # at the same place would give the library of before.
    with tempfile.TemporaryDirectory(prefix="bnn-deploy-") as folder:
        link = Path(folder) / "model.so"
        link.symlink_to(bundle.library)
        try:
            library = ctypes.CDLL(str(link))
            _declare(library)
        except (OSError, AttributeError) as error:
            raise BundleError(f"The library {bundle.library} cannot be loaded: {error}.") from error
    for name, expected in (("inputs", bundle.inputs), ("outputs", bundle.outputs)):
        if _describe(getattr(library, f"bnn_{name}")) != [(t.name, t.dtype, t.shape, t.bytes) for t in expected]:
            raise BundleError(f"The manifest of {bundle.path} was altered: its {name} are not those of model.so.")
    count = ctypes.c_size_t()
    library.bnn_steps(ctypes.byref(count))
    if count.value != len(bundle.steps):
        raise BundleError(f"The manifest of {bundle.path} was altered: its steps are not those of model.so.")
    return library


def _declare(library: ctypes.CDLL) -> None:
    pointer, count = ctypes.c_void_p, ctypes.POINTER(ctypes.c_size_t)
    for name in ("bnn_inputs", "bnn_outputs"):
        getattr(library, name).argtypes, getattr(library, name).restype = [count], ctypes.POINTER(_Tensor)
    library.bnn_steps.argtypes, library.bnn_steps.restype = [count], pointer
    if hasattr(library, "bnn_kernel_set"):
        library.bnn_kernel_set.argtypes, library.bnn_kernel_set.restype = [], ctypes.c_char_p
    if hasattr(library, "bnn_device_error"):  # not in libraries of before
        library.bnn_device_error.argtypes, library.bnn_device_error.restype = [], ctypes.c_char_p
        library.bnn_device.argtypes = [ctypes.POINTER(_DeviceInfo)]
    library.bnn_create.argtypes = [ctypes.c_int, ctypes.POINTER(pointer)]
    library.bnn_run.argtypes = [pointer] * 3
    library.bnn_run_timed.argtypes = [pointer] * 5
    if hasattr(library, "bnn_run_tapped"):
        library.bnn_run_tapped.argtypes = [*[pointer] * 4, ctypes.c_size_t, pointer, pointer, ctypes.c_size_t]
    library.bnn_failed_step.argtypes, library.bnn_failed_step.restype = [pointer], ctypes.c_ssize_t
    library.bnn_destroy.argtypes, library.bnn_destroy.restype = [pointer], None
    library.bnn_status_text.argtypes, library.bnn_status_text.restype = [ctypes.c_int], ctypes.c_char_p


def _describe(getter: Callable[..., Any]) -> list[tuple[str, str, tuple[int, ...], int]]:
    count = ctypes.c_size_t()
    tensors = getter(ctypes.byref(count))
    return [
        (
            tensors[i].name.decode(),
            tensors[i].dtype.decode(),
            tuple(tensors[i].shape[k] for k in range(tensors[i].rank)),
            tensors[i].bytes,
        )
        for i in range(count.value)
    ]
