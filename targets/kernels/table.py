"""Which kernel runs a layer on a target: one literal table, read by dispatch, tests and benchmarks; GPUs have ``cuda.table``.

Grammar of kernel names::

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
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from bnn_deploy.errors import CompileError
from bnn_deploy.targets.base import Target
from bnn_deploy.targets.cuda import table as gpu_table
from bnn_deploy.targets.kernels import (
    binary_conv2d,
    bitpack,
    carry_save_conv2d,
    carry_tree_conv2d,
    depthwise_conv2d,
    shift_words,
)
from bnn_deploy.targets.kernels.carry_save_tiling import CarrySaveTiling, ChainStyle, fits
from bnn_deploy.targets.kernels.carry_tree_tiling import CarryTreeTiling, TreeStyle
from bnn_deploy.targets.kernels.carry_tree_tiling import fits as fits_tree
from bnn_deploy.targets.kernels.kernel import Kernel
from bnn_deploy.targets.kernels.specification import (
    WORD_BITS,
    ConvolutionSpecification,
    MultiSignPackSpecification,
    MultiTernaryPackSpecification,
    ShiftWordsSpecification,
    SignPackSpecification,
    Specification,
    TernaryPackSpecification,
)
from bnn_deploy.targets.kernels.tiling import Tile, Tiling


@dataclass(frozen=True)
class TileChoice:
    """A line of the table: where it applies, and the widest register tile there."""

    applies: Callable[[Target], bool]
    tile: Tile
    reason: str


# The first line that applies to a target is taken.
TILES = (
    TileChoice(
        lambda target: target.architecture == "x86_64" and "+avx512vpopcntdq" in target.mattr,
        Tile("word", lanes=16, pixels=7, vectors=2),
        "vpopcntd counts a word per lane; 14 counters of 32 registers, and 7 divides the rows of 224x224 networks",
    ),
    TileChoice(
        lambda target: target.architecture == "x86_64" and target.vector_bits == 512,
        Tile("byte", lanes=16, pixels=7, vectors=2),
        "pshufb counts bytes; 14 counters of 32 registers; up to 20% above 4 by 2, whose tiles overlap in rows of 7",
    ),
    TileChoice(
        lambda target: target.architecture == "x86_64",
        Tile("byte", lanes=8, pixels=7, vectors=1),
        "pshufb counts bytes; 7 counters of 16 registers beside its tables; up to 13% above 4 by 2 in rows of 7",
    ),
    TileChoice(
        lambda target: target.architecture == "arm64",
        Tile("byte", lanes=4, pixels=4, vectors=4),
        "for what chains do not compute: eor + cnt + add per 128 bits; 16 counters of 32 registers, 4 weights reused",
    ),
    TileChoice(
        lambda target: True,
        Tile("word", lanes=4, pixels=4, vectors=1),
        "portable: LLVM's own popcount on the narrowest vectors",
    ),
)


@dataclass(frozen=True)
class ChainChoice:
    """A line of the table of chains: where it applies, and what suits the cores there."""

    applies: Callable[[Target], bool]
    style: ChainStyle
    reason: str


# The first line that applies is taken for the layers that ``carry_save_tiling.fits``; without one, TILES.
CHAINS = (
    ChainChoice(
        lambda target: target.mcpu == "cortex-a53",
        ChainStyle(half_chain=5, chain=1, pixels=4, keep_order=False),
        "in-order cores need independent work side by side more than fewer instructions: 35.9 MAC/cycle modelled",
    ),
    ChainChoice(
        lambda target: target.name in ("rpi4", "jetson-nano-cpu"),
        ChainStyle(half_chain=9, chain=1, pixels=8, keep_order=True),
        "bsl takes both vector pipes of Cortex-A57 and A72, which leaves chains fewer instructions but no fewer cycles",
    ),
    ChainChoice(
        lambda target: target.architecture == "arm64",
        ChainStyle(half_chain=9, chain=5, pixels=2, keep_order=True),
        "five vectors by three popcounts: 96 MAC/cycle modelled on Neoverse N1, where counting every vector ends at 85",
    ),
)


@dataclass(frozen=True)
class TreeChoice:
    """A line of the table of trees: where it applies, and what suits the processors there."""

    applies: Callable[[Target], bool]
    style: TreeStyle
    reason: str


# The first line that applies is taken for the layers that ``carry_tree_tiling.fits``; without one, TILES.
TREES = (
    TreeChoice(
        lambda target: (
            target.architecture == "x86_64" and target.vector_bits == 512 and "+avx512vpopcntdq" not in target.mattr
        ),
        TreeStyle(words=8, lanes=16, pixels=2, vectors=2, lookup=True),
        "an adder is two vpternlogd; four cells of four registers are left unspilled: 5 to 90% above counting every word",
    ),
    TreeChoice(
        lambda target: target.architecture == "x86_64" and target.vector_bits == 256,
        TreeStyle(words=8, lanes=8, pixels=1, vectors=2, lookup=False),
        "an adder is five instructions, counting seven; two cells in 16 registers: 2 to 28% above counting every word",
    ),
)


# Packing kernels by what they compute; architectures differ in how comparisons become bits.
PACKS = {
    SignPackSpecification: ("sign_pack", bitpack.build_sign_pack),
    TernaryPackSpecification: ("ternary_pack", bitpack.build_ternary_pack),
    MultiSignPackSpecification: ("sign_pack_many", bitpack.build_multi_sign_pack),
    MultiTernaryPackSpecification: ("ternary_pack_many", bitpack.build_multi_ternary_pack),
}


def widest_tile(target: Target) -> Tile:
    """The register tile of the first line that applies to ``target``."""
    return next(choice.tile for choice in TILES if choice.applies(target))


def fuses_epilogue(specification: ConvolutionSpecification, target: Target) -> tuple[bool, bool]:
    """Whether the layer's kernel takes an epilogue, and whether that may also pack signs."""
    if target.gpu is not None:
        return gpu_table.fuses_epilogue(specification, target.gpu)
    kernel = select_kernel(specification, target)
    builds = (binary_conv2d.build, carry_tree_conv2d.build)
    if specification.group > 1 or specification.tap_scaled or kernel.builder.func not in builds:
        return False, False
    (tiling,) = kernel.builder.args
    block = tiling.tile.block
    # Operands are read by whole vectors, words are made of whole tiles.
    able = specification.out_channels % block == 0 and WORD_BITS % block == 0
    return able, able and block == WORD_BITS and target.architecture == "x86_64"


def takes_shifts(
    specification: ConvolutionSpecification, segments: tuple[tuple[int, int, int, int], ...], target: Target
) -> bool:
    """Whether the layer's kernel reads X's words as ``segments`` move them; processors copy them, which costs them little."""
    return target.gpu is not None and specification.may_shift(segments)


def select_kernel(specification: Specification, target: Target) -> Kernel:
    """The kernel that computes ``specification`` on ``target``; there always is one."""
    if target.gpu is not None:
        return gpu_table.select_kernel(specification, target.gpu)
    if isinstance(specification, ConvolutionSpecification) and specification.shifts:
        raise CompileError(f"No kernel of a processor shifts the words of a convolution, found {specification}.")
    if type(specification) in PACKS:
        name, build = PACKS[type(specification)]
        three = "ternary_" if getattr(specification, "zero", None) == 0 else ""
        name = f"{three}{name}_{target.architecture}"
        return Kernel(name, "pack", specification, partial(build, specification, target.architecture))
    if isinstance(specification, ShiftWordsSpecification):
        build = partial(shift_words.build, specification, target.float_lanes)
        return Kernel(f"shift_words_u32x{target.float_lanes}", "pack", specification, build)
    values = "ternary" if specification.ternary else "binary"
    tap = "_tap" if specification.tap_scaled else ""
    if depthwise_conv2d.is_depthwise(specification):
        lanes = min(target.float_lanes, depthwise_conv2d.fields_per_word(specification))
        return Kernel(
            f"{values}_depthwise_conv2d{tap}_u32x{lanes}",
            "binary",
            specification,
            partial(depthwise_conv2d.build, specification, lanes),
            partial(depthwise_conv2d.pack_weights, specification=specification),
        )
    style = next((choice.style for choice in CHAINS if choice.applies(target)), None)
    if style is not None and fits(specification):
        chained = CarrySaveTiling(specification, widest_tile(target), style)
        return Kernel(
            f"binary_conv2d_{chained.name}",
            "binary",
            specification,
            partial(carry_save_conv2d.build, chained),
            partial(carry_save_conv2d.pack_weights, tiling=chained),
        )
    tree = next((choice.style for choice in TREES if choice.applies(target)), None)
    if tree is not None and fits_tree(specification, tree):
        added = CarryTreeTiling(specification, widest_tile(target), tree)
        return Kernel(
            f"binary_conv2d_{added.name}",
            "binary",
            specification,
            partial(carry_tree_conv2d.build, added),
            partial(carry_tree_conv2d.pack_weights, tiling=added),
        )
    tiling = Tiling(specification, widest_tile(target))
    return Kernel(
        f"{values}_conv2d{tap}_{tiling.tile.name}",
        "binary",
        specification,
        partial(binary_conv2d.build, tiling),
        partial(binary_conv2d.pack_weights, tiling=tiling),
    )
