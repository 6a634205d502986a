"""Which kernel runs a layer on a GPU: one literal table, as ``targets.kernels.table`` is for processors.

Grammar of kernel names: see each module; ``mma`` kernels are made of b1 tensor-core instructions, ``popc`` kernels of ``__popc``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bnn_deploy.targets.base import Gpu
from bnn_deploy.targets.cuda.architectures import architecture
from bnn_deploy.targets.cuda.kernels import bitpack, mma_conv2d, popcount_conv2d, shift_words
from bnn_deploy.targets.kernels.kernel import Kernel
from bnn_deploy.targets.kernels.specification import (
    ConvolutionSpecification,
    PackSpecification,
    ShiftWordsSpecification,
    Specification,
)


@dataclass(frozen=True)
class KernelChoice:
    """A line of the table: where it applies, and what makes the kernel."""

    applies: Callable[[Specification, Gpu], bool]
    kernel: Callable[[Specification, Gpu], Kernel]
    reason: str


# The first line that applies is taken.
KERNELS = (
    KernelChoice(
        lambda specification, gpu: isinstance(specification, PackSpecification),
        bitpack.kernel,
        "a warp compares 32 neighbouring channels, and one ballot is their word",
    ),
    KernelChoice(
        lambda specification, gpu: isinstance(specification, ShiftWordsSpecification),
        shift_words.kernel,
        "words move, bits do not",
    ),
    KernelChoice(
        lambda specification, gpu: architecture(gpu.sm).dot_product != "popc" and mma_conv2d.applies(specification, gpu),
        mma_conv2d.kernel,
        "tensor cores multiply bits about 32 times as fast as __popc counts them (A100: 16384 to 512 per clock and SM)",
    ),
    KernelChoice(
        lambda specification, gpu: isinstance(specification, ConvolutionSpecification),
        popcount_conv2d.kernel,
        "no b1 mma on this GPU, or groups and scales per tap, which an mma cannot keep apart",
    ),
)


def select_kernel(specification: Specification, gpu: Gpu) -> Kernel:
    """The kernel that computes ``specification`` on ``gpu``; there always is one."""
    return next(choice for choice in KERNELS if choice.applies(specification, gpu)).kernel(specification, gpu)


def fuses_epilogue(specification: ConvolutionSpecification, gpu: Gpu) -> tuple[bool, bool]:
    """Whether the layer's kernel takes an epilogue, and whether that may also pack signs."""
    return specification.fuses(gpu)
