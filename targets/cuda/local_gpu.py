"""This machine's GPU, asked of NVIDIA's driver."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

from bnn_deploy.errors import TargetError

# CUdevice_attribute of cuda.h.
_COMPUTE_CAPABILITY_MAJOR = 75
_COMPUTE_CAPABILITY_MINOR = 76


@dataclass(frozen=True)
class LocalGpu:
    """The first GPU of this machine.

    Attributes:
        name: such as "NVIDIA H200".
        sm: compute capability times ten.
        cuda: the newest CUDA that the driver supports, such as (12, 4).
        memory_bytes: of the GPU.
    """

    name: str
    sm: int
    cuda: tuple[int, int]
    memory_bytes: int


def local_gpu() -> LocalGpu:
    """The GPU that programs get if they do not choose.

    Raises:
        TargetError: there is no driver, or no GPU that it can use; the text goes on after a colon.
    """
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        raise TargetError("NVIDIA's driver, libcuda.so.1, was not found on this machine") from None
    device, version, memory = ctypes.c_int(), ctypes.c_int(), ctypes.c_size_t()
    name = ctypes.create_string_buffer(256)
    major, minor = ctypes.c_int(), ctypes.c_int()
    for function, *arguments in (
        ("cuInit", 0),
        ("cuDriverGetVersion", ctypes.byref(version)),
        ("cuDeviceGet", ctypes.byref(device), 0),
        ("cuDeviceGetName", name, len(name), device),
        ("cuDeviceGetAttribute", ctypes.byref(major), _COMPUTE_CAPABILITY_MAJOR, device),
        ("cuDeviceGetAttribute", ctypes.byref(minor), _COMPUTE_CAPABILITY_MINOR, device),
        ("cuDeviceTotalMem_v2", ctypes.byref(memory), device),
    ):
        status = getattr(driver, function)(*arguments)
        if status != 0:
            raise TargetError(f"NVIDIA's driver on this machine gives no GPU ({function}: error {status})")
    return LocalGpu(
        name=name.value.decode(errors="replace"),
        sm=10 * major.value + minor.value,
        cuda=(version.value // 1000, version.value % 1000 // 10),
        memory_bytes=memory.value,
    )
