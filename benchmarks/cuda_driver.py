"""Kernels on a GPU by NVIDIA's driver alone: modules, memory, launches, graphs and times. tests/gpu has it from here, too."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from contextlib import suppress

import numpy as np

from bnn_deploy.errors import DeviceError
from bnn_deploy.plan import Launch

# CUdevice_attribute and CUstreamCaptureMode of cuda.h.
_CLOCK_RATE = 13
_MULTIPROCESSOR_COUNT = 16
_CAPTURE_THREAD_LOCAL = 1


class Driver:
    """The primary context of the first GPU, which is current on the thread that made this.

    Every method raises DeviceError where the driver's function fails, or an earlier one did without being waited for.

    Attributes:
        stream: address of the one stream that everything here is done in.
        multiprocessors: of the GPU.
        clock: their highest, in hertz.
    """

    def __init__(self) -> None:
        self._library = ctypes.CDLL("libcuda.so.1")
        self._device, context, stream = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_void_p()
        self._call("cuInit", ctypes.c_uint(0))
        self._call("cuDeviceGet", ctypes.byref(self._device), 0)
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(context), self._device)
        self._call("cuCtxPushCurrent_v2", context)
        self._call("cuStreamCreate", ctypes.byref(stream), ctypes.c_uint(0))
        self.stream = stream
        self.multiprocessors = self._attribute(_MULTIPROCESSOR_COUNT)
        self.clock = 1e3 * self._attribute(_CLOCK_RATE)

    def close(self) -> None:
        """Give the context back. What fails after a kernel that failed is of no interest."""
        with suppress(DeviceError):
            self._call("cuStreamDestroy_v2", self.stream)
        with suppress(DeviceError):
            self._call("cuCtxPopCurrent_v2", ctypes.byref(ctypes.c_void_p()))
        with suppress(DeviceError):
            self._call("cuDevicePrimaryCtxRelease", self._device)

    def load(self, image: bytes) -> ctypes.c_void_p:
        """A module of a cubin, or of PTX that ends in a zero byte."""
        module = ctypes.c_void_p()
        self._call("cuModuleLoadData", ctypes.byref(module), image)
        return module

    def unload(self, module: ctypes.c_void_p) -> None:
        """Free a module."""
        self._call("cuModuleUnload", module)

    def allocate(self, count: int) -> int:
        """Address of ``count`` bytes, a multiple of 256."""
        address = ctypes.c_uint64()
        self._call("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(count))
        return address.value

    def free(self, address: int) -> None:
        """Free what ``allocate`` gave."""
        self._call("cuMemFree_v2", ctypes.c_uint64(address))

    def upload(self, address: int, array: np.ndarray) -> None:
        """Copy a contiguous array to the GPU."""
        source, count = ctypes.c_void_p(array.ctypes.data), ctypes.c_size_t(array.nbytes)
        self._call("cuMemcpyHtoDAsync_v2", ctypes.c_uint64(address), source, count, self.stream)
        self.wait()

    def download(self, address: int, array: np.ndarray) -> None:
        """Copy from the GPU into a contiguous array, after everything before."""
        target, count = ctypes.c_void_p(array.ctypes.data), ctypes.c_size_t(array.nbytes)
        self._call("cuMemcpyDtoHAsync_v2", target, ctypes.c_uint64(address), count, self.stream)
        self.wait()

    def launcher(self, module: ctypes.c_void_p, launch: Launch, addresses: Sequence[int]) -> Launcher:
        """What runs one kernel of a module with these parameters."""
        function = ctypes.c_void_p()
        self._call("cuModuleGetFunction", ctypes.byref(function), module, launch.symbol.encode())
        return Launcher(self, function, launch, addresses)

    def graph(self, work: Callable[[], object]) -> Callable[[], None]:
        """What puts all launches of ``work`` into the stream at once; they follow each other without the processor."""
        captured, graph = ctypes.c_void_p(), ctypes.c_void_p()
        self._call("cuStreamBeginCapture_v2", self.stream, _CAPTURE_THREAD_LOCAL)
        work()
        self._call("cuStreamEndCapture", self.stream, ctypes.byref(captured))
        self._call("cuGraphInstantiateWithFlags", ctypes.byref(graph), captured, ctypes.c_uint64(0))
        self._call("cuGraphDestroy", captured)
        return lambda: self._call("cuGraphLaunch", graph, self.stream)

    def time(self, work: Callable[[], object]) -> float:
        """Seconds on the GPU's clock that what ``work`` puts into the stream takes."""
        start, end = self.event(), self.event()
        self.record(start)
        work()
        self.record(end)
        seconds = self.seconds(start, end)
        for event in (start, end):
            self._call("cuEventDestroy_v2", event)
        return seconds

    def wait(self) -> None:
        """Until the stream is empty."""
        self._call("cuStreamSynchronize", self.stream)

    def event(self) -> ctypes.c_void_p:
        """An event that knows its time; ``record`` puts it into the stream."""
        event = ctypes.c_void_p()
        self._call("cuEventCreate", ctypes.byref(event), ctypes.c_uint(0))
        return event

    def record(self, event: ctypes.c_void_p) -> None:
        """Put an event behind all work of the stream."""
        self._call("cuEventRecord", event, self.stream)

    def seconds(self, start: ctypes.c_void_p, end: ctypes.c_void_p) -> float:
        """The GPU's time between two events; waits for the second one."""
        milliseconds = ctypes.c_float()
        self._call("cuEventSynchronize", end)
        self._call("cuEventElapsedTime", ctypes.byref(milliseconds), start, end)
        return 1e-3 * milliseconds.value

    def _attribute(self, attribute: int) -> int:
        value = ctypes.c_int()
        self._call("cuDeviceGetAttribute", ctypes.byref(value), attribute, self._device)
        return value.value

    def _call(self, name: str, *arguments: object) -> None:
        function = getattr(self._library, name, None)
        if function is None:
            raise DeviceError(f"The GPU's driver has no {name}: install one of CUDA 11.4 or newer.")
        status = function(*arguments)
        if status != 0:
            raise DeviceError(f"The GPU's driver failed in {name}: {self._error(status)}.")

    def _error(self, status: int) -> str:
        text = ctypes.c_char_p()
        self._library.cuGetErrorName(status, ctypes.byref(text))
        return f"{text.value.decode() if text.value else 'error'} ({status})"


class Launcher:
    """One kernel with its parameters; a call puts it into the stream."""

    def __init__(self, driver: Driver, function: ctypes.c_void_p, launch: Launch, addresses: Sequence[int]) -> None:
        self._driver, self._function, self._sizes = driver, function, (*launch.grid, *launch.block)
        self._values = [ctypes.c_uint64(address) for address in addresses]
        self._parameters = (ctypes.c_void_p * len(addresses))(*(ctypes.addressof(value) for value in self._values))

    def __call__(self) -> None:
        sizes = [ctypes.c_uint(size) for size in (*self._sizes, 0)]
        self._driver._call("cuLaunchKernel", self._function, *sizes, self._driver.stream, self._parameters, None)
