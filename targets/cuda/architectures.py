"""What the GPU architectures differ in: the one table by SM from which kernels, limits and PTX versions are chosen.

A binary dot product is ``base + alpha * accumulated + beta * popcount(activations of the window)``; what is accumulated:

    instruction      accumulated                alpha  beta  base (made at compile time)
    popc             popcount(a ^ w), __popc       -2     0  K
    xor_8x8x128      popcount(a ^ w), b1 mma       -2     0  K
    xor_16x8x256     popcount(a ^ w), b1 mma       -2     0  K
    and_16x8x256     popcount(a & w), b1 mma        4    -2  K - 2 * popcount(w)

The last line is K - 2 popcount(a ^ w) with popcount(a ^ w) = popcount(a) + popcount(w) - 2 popcount(a & w).

GPUs after sm_90 have no row: there is no b1 mma in them (ptxas 13.0 makes int8 mma of both operations for sm_100 and sm_120), and
nobody has measured what is best there. They run bundles for sm_90, whose PTX their drivers translate.

Sources: the PTX ISA 8.5, section 9.7.14 "mma" (shapes, operations, "PTX ISA Notes" and "Target ISA Notes") and "Release Notes" (the
PTX version of each CUDA and SM). Which mma is native is no part of it: tests/codegen/test_cuda_compiler.py reads that from the
machine code. ``__popc``: the CUDA C++ Programming Guide, "Throughput of Native Arithmetic Instructions": 16 or 32 results per
clock and SM, each for the 64 bits that a full adder leaves to it (kernels/popcount_conv2d.py), whose 4 other instructions take
as long: 64 or 128 per clock. A100: NVIDIA's whitepaper, 4992 binary TOPS = 108 SMs * 1.41 GHz * 2 * 16384.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bnn_deploy.errors import TargetError

DotProduct = Literal["popc", "xor_8x8x128", "xor_16x8x256", "and_16x8x256"]

_NO_TENSOR_CORES = "no tensor cores"
_NO_B1 = "its tensor cores know float16 (and sm_72 int8) only: b1 mma starts at sm_75"
_SMALL_XOR = "b1 mma knows XOR m8n8k128 only"
_XOR = "b1 mma XOR m16n8k256 is native, and needs no popcount of the activations as AND does"
_AND = "b1 mma AND m16n8k256 is native; XOR is emulated"
_GUIDE = "CUDA C++ Programming Guide"


@dataclass(frozen=True)
class Architecture:
    """One row of the table.

    Attributes:
        sm: compute capability times ten.
        dot_product: the instruction that binary layers are made of: ``"popc"``, or a shape of b1 mma and its operation.
        reason: why this one.
        ptx_isa: the oldest PTX version that has this SM and all instructions of its kernels: what older drivers can translate.
            popc kernels need 6.0 (shfl.sync, vote.sync), the mma kernels 7.0 (mma with b1, cp.async) or, for AND, 7.1.
        binary_macs_per_clock: the most that one SM can make in one clock; None where neither NVIDIA nor a measurement says.
        source: of that number.
    """

    sm: int
    dot_product: DotProduct
    reason: str
    ptx_isa: str
    binary_macs_per_clock: int | None = None
    source: str | None = None

    @property
    def name(self) -> str:
        """NVIDIA's name: "sm_87"."""
        return f"sm_{self.sm}"

    @property
    def has_cp_async(self) -> bool:
        """Copies from global to shared memory that no register sees, and that a warp need not wait for."""
        return self.sm >= 80


ARCHITECTURES = (
    Architecture(53, "popc", _NO_TENSOR_CORES, "6.0", 32 * 64, _GUIDE),
    Architecture(60, "popc", _NO_TENSOR_CORES, "6.0", 16 * 64, _GUIDE),
    Architecture(61, "popc", _NO_TENSOR_CORES, "6.0", 32 * 64, _GUIDE),
    Architecture(62, "popc", _NO_TENSOR_CORES, "6.0", 32 * 64, _GUIDE),
    Architecture(70, "popc", _NO_B1, "6.0", 16 * 64, _GUIDE),
    Architecture(72, "popc", _NO_B1, "6.1", 16 * 64, _GUIDE),
    Architecture(75, "xor_8x8x128", _SMALL_XOR, "7.0"),
    Architecture(80, "xor_16x8x256", _XOR, "7.0", 16384, "NVIDIA A100 whitepaper"),
    Architecture(86, "xor_16x8x256", _XOR, "7.1"),
    Architecture(87, "xor_16x8x256", _XOR, "7.4"),
    Architecture(89, "xor_16x8x256", _XOR, "7.8"),
    # Not NVIDIA's number, and no upper limit: what somebody measured.
    Architecture(90, "and_16x8x256", _AND, "7.8", 17_700, "one third-party measurement of the mma rate on Hopper"),
)


def architecture(sm: int) -> Architecture:
    """The row of an SM.

    Raises:
        TargetError: there are no kernels for this SM.
    """
    for row in ARCHITECTURES:
        if row.sm == sm:
            return row
    known = [row for row in ARCHITECTURES if row.sm < sm]
    advice = (
        f"compile for {known[-1].name}, whose PTX the driver of this newer GPU translates when a program starts"
        if known
        else "use a newer GPU, or compile for the processor"
    )
    names = ", ".join(row.name for row in ARCHITECTURES)
    raise TargetError(f"There are no kernels for sm_{sm}: {advice} (known: {names}).")
