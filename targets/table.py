"""Which kernel runs a layer on a target: one literal table, read by dispatch, tests and benchmarks.

Grammar of kernel names on processors::

    <values>_conv2d[_tap]_<counter>x<lanes>_p<pixels>v<vectors>       binary_conv2d_u32x16_p7v2
    binary_conv2d_chain<length>x<words>_p<pixels>                     binary_conv2d_chain5x4_p2
    binary_conv2d_tree<words>x<lanes>_p<pixels>v<vectors>             binary_conv2d_tree8x16_p2v2
    <values>_depthwise_conv2d[_tap]_u32x<lanes>                       ternary_depthwise_conv2d_tap_u32x4
    sign_pack[_many]_<architecture>   ternary_pack[_many]_<architecture>            sign_pack_x86_64
    ternary_sign_pack[_many]_<architecture>                           ternary_sign_pack_x86_64
    shift_words_u32x<lanes>                                           shift_words_u32x16

``values`` is ``binary`` (-1, +1) or ``ternary`` (-1, 0, +1); ``ternary_pack`` rounds to these, ``ternary_sign_pack`` gives 0
at a threshold only. ``tap`` means one scale per tap; ``counter`` is ``u32`` (popcounts of 32-bit lanes are added) or ``u8``
(popcounts of bytes are added, and widened now and then); a register tile is ``pixels`` output pixels by ``vectors`` vectors
of ``lanes`` output channels. The tile is the target's widest one cut down to the layer. ``chain`` kernels
(``carry_save_conv2d``) add up to ``length`` vectors bit by bit before they count them, a vector holds ``words`` words of one
output channel, and a tile is ``pixels`` by eight output channels. ``tree`` kernels (``carry_tree_conv2d``) add bit by bit,
too, until one vector of ``words`` is left to be counted.

On GPUs::

    <values>_conv2d_mma_<form>_<pixels>x<channels>                    binary_conv2d_mma_xor_128x64
    <values>_conv2d_popc_<channels>x<pixels>                          binary_conv2d_popc_32x32
    <values>_grouped_conv2d[_tap]_popc_<threads>                      ternary_grouped_conv2d_tap_popc_128
    sign_pack[_many]_ballot   ternary_pack[_many]_ballot   ternary_sign_pack[_many]_ballot
    shift_words_u32x<lanes>                                           shift_words_u32x4

``mma`` kernels are made of b1 tensor-core instructions, whose ``form`` is ``xor`` or ``and``, others of ``__popc``; numbers are
those of a block of threads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

from bnn_deploy.errors import CompileError
from bnn_deploy.targets.base import Gpu, Target
from bnn_deploy.targets.cuda.kernels import bitpack as gpu_bitpack
from bnn_deploy.targets.cuda.kernels import mma_conv2d, popcount_conv2d
from bnn_deploy.targets.cuda.kernels import shift_words as gpu_shift_words
from bnn_deploy.targets.kernels.binary import binary_conv2d, carry_save_conv2d, carry_tree_conv2d
from bnn_deploy.targets.kernels.binary.carry_save_tiling import ChainStyle
from bnn_deploy.targets.kernels.binary.carry_tree_tiling import TreeStyle
from bnn_deploy.targets.kernels.binary.counting_tiling import CountingTile
from bnn_deploy.targets.kernels.depthwise import depthwise_conv2d
from bnn_deploy.targets.kernels.kernel import Kernel
from bnn_deploy.targets.kernels.pack_specification import PackSpecification
from bnn_deploy.targets.kernels.packing import bitpack, shift_words
from bnn_deploy.targets.kernels.specification import (
    ConvolutionSpecification,
    Segments,
    ShiftWordsSpecification,
    Specification,
)

Work = TypeVar("Work", bound=Specification)
Machine = TypeVar("Machine", Target, Gpu)


@dataclass(frozen=True)
class KernelChoice(Generic[Work, Machine]):
    """A line of the table.

    Attributes:
        work: what the kernel computes.
        machines: which processors, or GPUs, it is for.
        kernel: makes it; None for work that it does not do.
        reason: why it is the one there.
    """

    work: type[Work]
    machines: Callable[[Machine], bool]
    kernel: Callable[[Work, Machine], Kernel | None]
    reason: str


def everywhere(machine: Target | Gpu) -> bool:
    """All machines."""
    return True


def x86_64(target: Target) -> bool:
    """x86-64 processors: at least AVX2."""
    return target.architecture == "x86_64"


def vpopcntdq(target: Target) -> bool:
    """x86-64 processors with AVX-512 and its popcount."""
    return x86_64(target) and "+avx512vpopcntdq" in target.mattr


def avx512(target: Target) -> bool:
    """x86-64 processors with AVX-512 but without its popcount."""
    return x86_64(target) and target.vector_bits == 512 and not vpopcntdq(target)


def avx2(target: Target) -> bool:
    """x86-64 processors with AVX2 only."""
    return x86_64(target) and target.vector_bits == 256


def arm64(target: Target) -> bool:
    """64-bit Arm processors."""
    return target.architecture == "arm64"


# Of the lines for a machine, the first whose kernel does the work is taken.
PROCESSOR_KERNELS: tuple[KernelChoice[Any, Target], ...] = (
    KernelChoice(
        PackSpecification, everywhere, bitpack.kernel, "architectures differ in how comparisons become bits: see there"
    ),
    KernelChoice(
        ShiftWordsSpecification, everywhere, shift_words.kernel, "words move, bits do not: a copy by whole registers"
    ),
    KernelChoice(
        ConvolutionSpecification,
        everywhere,
        depthwise_conv2d.kernel,
        "7 or 14 bits per output are no dot product: fields of a word are counted, or looked up",
    ),
    # Chains of vectors along K.
    KernelChoice(
        ConvolutionSpecification,
        lambda target: target.mcpu == "cortex-a53",
        partial(carry_save_conv2d.kernel, style=ChainStyle(half_chain=5, chain=1, pixels=4, keep_order=False)),
        "in-order cores need independent work side by side more than fewer instructions: 35.9 MAC/cycle modelled",
    ),
    KernelChoice(
        ConvolutionSpecification,
        lambda target: target.name in ("rpi4", "jetson-nano-cpu"),
        partial(carry_save_conv2d.kernel, style=ChainStyle(half_chain=9, chain=1, pixels=8, keep_order=True)),
        "bsl takes both vector pipes of Cortex-A57 and A72, which leaves chains fewer instructions but no fewer cycles",
    ),
    KernelChoice(
        ConvolutionSpecification,
        arm64,
        partial(carry_save_conv2d.kernel, style=ChainStyle(half_chain=9, chain=5, pixels=2, keep_order=True)),
        "five vectors by three popcounts: 96 MAC/cycle modelled on Neoverse N1, where counting every vector ends at 85",
    ),
    # Trees of adders over words of K.
    KernelChoice(
        ConvolutionSpecification,
        avx512,
        partial(carry_tree_conv2d.kernel, style=TreeStyle(words=8, lanes=16, pixels=2, vectors=2, lookup=True)),
        "an adder is two vpternlogd; four cells of four registers are left unspilled: 5 to 90% above counting every word",
    ),
    KernelChoice(
        ConvolutionSpecification,
        avx2,
        partial(carry_tree_conv2d.kernel, style=TreeStyle(words=8, lanes=8, pixels=1, vectors=2, lookup=False)),
        "an adder is five instructions, counting seven; two cells in 16 registers: 2 to 28% above counting every word",
    ),
    # Counting every word, and all that chains and trees do not compute.
    KernelChoice(
        ConvolutionSpecification,
        vpopcntdq,
        partial(binary_conv2d.kernel, widest=CountingTile(counter="word", lanes=16, pixels=7, vectors=2)),
        "vpopcntd counts a word per lane; 14 counters of 32 registers, and 7 divides the rows of 224x224 networks",
    ),
    KernelChoice(
        ConvolutionSpecification,
        avx512,
        partial(binary_conv2d.kernel, widest=CountingTile(counter="byte", lanes=16, pixels=7, vectors=2)),
        "pshufb counts bytes; 14 counters of 32 registers; up to 20% above 4 by 2, whose tiles overlap in rows of 7",
    ),
    KernelChoice(
        ConvolutionSpecification,
        x86_64,
        partial(binary_conv2d.kernel, widest=CountingTile(counter="byte", lanes=8, pixels=7, vectors=1)),
        "pshufb counts bytes; 7 counters of 16 registers beside its tables; up to 13% above 4 by 2 in rows of 7",
    ),
    KernelChoice(
        ConvolutionSpecification,
        arm64,
        partial(binary_conv2d.kernel, widest=CountingTile(counter="byte", lanes=4, pixels=4, vectors=4)),
        "eor + cnt + add per 128 bits; 16 counters of 32 registers, 4 weights reused",
    ),
    KernelChoice(
        ConvolutionSpecification,
        everywhere,
        partial(binary_conv2d.kernel, widest=CountingTile(counter="word", lanes=4, pixels=4, vectors=1)),
        "portable: LLVM's own popcount on the narrowest vectors",
    ),
)

GPU_KERNELS: tuple[KernelChoice[Any, Gpu], ...] = (
    KernelChoice(
        PackSpecification,
        everywhere,
        gpu_bitpack.kernel,
        "a warp compares 32 neighbouring channels, and one ballot is their word",
    ),
    KernelChoice(ShiftWordsSpecification, everywhere, gpu_shift_words.kernel, "words move, bits do not"),
    KernelChoice(
        ConvolutionSpecification,
        everywhere,
        mma_conv2d.kernel,
        "tensor cores multiply bits faster than __popc counts them: 16384 to 512 per clock on an SM of the A100",
    ),
    KernelChoice(
        ConvolutionSpecification,
        everywhere,
        popcount_conv2d.kernel,
        "no b1 mma on this GPU, or groups or scales per tap, which an mma cannot keep apart",
    ),
)


def select_kernel(specification: Specification, target: Target) -> Kernel:
    """The kernel that does the work on ``target``; there always is one.

    Raises:
        CompileError: a processor is asked for a convolution with shifts, which is a defect of a pass.
    """
    if target.gpu is not None:
        return select_gpu_kernel(specification, target.gpu)
    if isinstance(specification, ConvolutionSpecification) and specification.shifts:
        raise CompileError(f"No kernel of a processor shifts the words of a convolution, found {specification}.")
    return _first(PROCESSOR_KERNELS, specification, target)


def select_gpu_kernel(specification: Specification, gpu: Gpu) -> Kernel:
    """The kernel that does the work on a GPU; there always is one."""
    return _first(GPU_KERNELS, specification, gpu)


def _first(table: Sequence[KernelChoice[Any, Machine]], specification: Specification, machine: Machine) -> Kernel:
    fitting = (line for line in table if isinstance(specification, line.work) and line.machines(machine))
    return next(kernel for line in fitting if (kernel := line.kernel(specification, machine)) is not None)


def takes_shifts(specification: ConvolutionSpecification, segments: Segments, target: Target) -> bool:
    """Whether the layer's kernel reads X's words as ``segments`` move them; processors copy them, which costs them little."""
    return target.gpu is not None and specification.may_shift(segments)
