"""Machine code for GPUs, as bundles carry it: ready for one architecture, and as text that a driver compiles for others."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from bnn_deploy.errors import CompileError

# The first CUDA whose driver reads a version of PTX: "Release Notes" of NVIDIA's PTX ISA manual.
# https://docs.nvidia.com/cuda/parallel-thread-execution/#release-notes
CUDA_OF_PTX = {
    (6, 0): (9, 0),
    (6, 1): (9, 1),
    (6, 2): (9, 2),
    (6, 3): (10, 0),
    (6, 4): (10, 1),
    (6, 5): (10, 2),
    **{(7, minor): (11, minor) for minor in range(9)},
    **{(8, minor): (12, minor) for minor in range(6)},
    (8, 6): (12, 7),
    (8, 7): (12, 8),
    (8, 8): (12, 9),
    (9, 0): (13, 0),
}
# The runtime's own need: it captures streams into graphs with functions of this version (runtime/cuda/driver.h).
RUNTIME_CUDA = (10, 2)


@dataclass(frozen=True)
class DeviceCode:
    """The kernels of a plan.

    Attributes:
        cubin: ELF image for GPUs of compute capability ``sm`` and of newer ones with the same major number.
        ptx: the same kernels in NVIDIA's virtual instructions, for all GPUs from ``sm`` on; one ``.version`` line.
        sm: compute capability times ten.
        toolkit: version of CUDA that made the cubin, such as "12.2": what a driver must have to load it.
    """

    cubin: bytes
    ptx: str
    sm: int
    toolkit: str

    @property
    def ptx_isa(self) -> tuple[int, int]:
        """The version of PTX that the text says it needs.

        Raises:
            CompileError: it says none.
        """
        found = re.search(r"^\s*\.version\s+(\d+)\.(\d+)\s*$", self.ptx, flags=re.MULTILINE)
        if found is None:
            raise CompileError(
                f"The PTX for sm_{self.sm} has no .version line; this is a defect of bnn-deploy, please report it."
            )
        return int(found[1]), int(found[2])

    @property
    def needs_cuda(self) -> str:
        """The oldest CUDA whose driver loads the cubin; never older than the runtime's own need."""
        major, minor, *_ = map(int, self.toolkit.split("."))
        return _text(max((major, minor), RUNTIME_CUDA))

    @property
    def needs_cuda_ptx(self) -> str:
        """The oldest CUDA whose driver compiles the PTX.

        Raises:
            CompileError: the PTX is of a version that is not in ``CUDA_OF_PTX``.
        """
        if self.ptx_isa not in CUDA_OF_PTX:
            raise CompileError(
                f"The PTX for sm_{self.sm} is of version {_text(self.ptx_isa)}, expected one of "
                f"{_text(min(CUDA_OF_PTX))} to {_text(max(CUDA_OF_PTX))}; use the CUDA compiler of the extra bnn-deploy[cuda]."
            )
        return _text(max(CUDA_OF_PTX[self.ptx_isa], RUNTIME_CUDA))

    def to_bytes(self) -> bytes:
        """For the object cache: a line of JSON, the cubin, the PTX."""
        line = json.dumps({"sm": self.sm, "toolkit": self.toolkit, "cubin_bytes": len(self.cubin)})
        return line.encode() + b"\n" + self.cubin + self.ptx.encode()

    @classmethod
    def from_bytes(cls, content: bytes) -> DeviceCode:
        """What ``to_bytes`` made; the cache has checked that it is unchanged."""
        line, _, images = content.partition(b"\n")
        entry = json.loads(line)
        size = entry["cubin_bytes"]
        return cls(images[:size], images[size:].decode(), entry["sm"], entry["toolkit"])


def _text(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"
