"""Which kernel runs a layer on a GPU: one literal table, as ``targets.kernels.table`` is for processors.

Kernel names are described in each module: those with ``mma`` are made of b1 tensor-core instructions, those with ``popc`` of
``__popc``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bnn_deploy.targets.base import Gpu
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
    """A line of the table: where it applies, what makes the kernel, and what it may do beside its sums.

    ``fuses`` says of a layer whether the kernel takes an epilogue, and whether that may also pack signs.
    """

    applies: Callable[[Specification, Gpu], bool]
    kernel: Callable[[Specification, Gpu], Kernel]
    fuses: Callable[[ConvolutionSpecification], tuple[bool, bool]]
    reason: str


# The first line that applies is taken.
KERNELS = (
    KernelChoice(
        lambda specification, gpu: isinstance(specification, PackSpecification),
        bitpack.kernel,
        lambda specification: (False, False),
        "a warp compares 32 neighbouring channels, and one ballot is their word",
    ),
    KernelChoice(
        lambda specification, gpu: isinstance(specification, ShiftWordsSpecification),
        shift_words.kernel,
        lambda specification: (False, False),
        "words move, bits do not",
    ),
    KernelChoice(
        mma_conv2d.applies,
        mma_conv2d.kernel,
        mma_conv2d.fuses,
        "tensor cores multiply bits faster than __popc counts them: 16384 to 512 per clock on an SM of the A100",
    ),
    KernelChoice(
        lambda specification, gpu: True,
        popcount_conv2d.kernel,
        popcount_conv2d.fuses,
        "no b1 mma on this GPU, or groups or scales per tap, which an mma cannot keep apart",
    ),
)


def select_kernel(specification: Specification, gpu: Gpu) -> Kernel:
    """The kernel that computes ``specification`` on ``gpu``; there always is one."""
    return _choice(specification, gpu).kernel(specification, gpu)


def fuses_epilogue(specification: ConvolutionSpecification, gpu: Gpu) -> tuple[bool, bool]:
    """Whether the layer's kernel takes an epilogue, and whether that may also pack signs."""
    return _choice(specification, gpu).fuses(specification)


def _choice(specification: Specification, gpu: Gpu) -> KernelChoice:
    return next(choice for choice in KERNELS if choice.applies(specification, gpu))
