"""The operands of a binary convolution: where a call begins, words of X, and the bits in which they differ from the weights."""

from __future__ import annotations

from collections.abc import Callable

from tvm.ir import Expr
from tvm.tirx import Buffer
from tvm.tirx.script import builder as T

from bnn_deploy.targets.kernels.specification import ConvolutionSpecification, ShiftWordsSpecification
from bnn_deploy.targets.kernels.vector import WORD, block_parameter, let, spread
from bnn_deploy.targets.kernels.words import WORD_BITS, word_count

# (image, row, column, group, word of the group) -> one uint32 per plane
Load = Callable[[Expr, Expr, Expr, Expr, Expr], tuple[Expr, ...]]


def block_origin(specification: ConvolutionSpecification | ShiftWordsSpecification) -> tuple[Expr | int, Expr | int]:
    """Image and output row at which this call begins; with ``block_rows`` this declares the parameter they come from."""
    if not specification.block_rows:
        return 0, 0
    block = block_parameter()
    blocks = specification.image_output_shape[1] // specification.block_rows
    return let("first_image", block // blocks), let("first_row", block % blocks * specification.block_rows)


def group_word_loader(image: Buffer, specification: ConvolutionSpecification) -> Load:
    """Reads word ``word`` of a group's channels, its first channel at bit 0 and other groups' bits cleared.

    ``image`` is uint32 (N, H, planes, W, words). Groups of whole words are read as they are; other groups are a window
    of bits that may straddle two words.
    """
    channels = specification.group_channels
    group_words, image_words = word_count(channels), word_count(specification.in_channels)
    tail_mask = (1 << (channels % WORD_BITS or WORD_BITS)) - 1

    def load_plane(plane: int, n: Expr, row: Expr, column: Expr, group: Expr, word: Expr) -> Expr:
        if specification.group == 1 or channels % WORD_BITS == 0:
            return image[n, row, plane, column, group * group_words + word]
        first_bit = group * channels + word * WORD_BITS
        index, shift = first_bit // WORD_BITS, T.Cast(WORD, first_bit % WORD_BITS)
        bits = image[n, row, plane, column, index] >> shift
        if WORD_BITS % channels:
            above = image[n, row, plane, column, T.min(index + 1, image_words - 1)]
            # Shifting by 32 is undefined, so a window that starts at bit 0 takes nothing from the word above.
            above = above << ((T.uint32(WORD_BITS) - shift) & T.uint32(WORD_BITS - 1))
            bits = bits | T.Select(shift > T.uint32(0), above, T.uint32(0))
        if group_words == 1:
            return bits & T.uint32(tail_mask)
        return bits & T.Select(word == group_words - 1, T.uint32(tail_mask), T.uint32(0xFFFFFFFF))

    def load(n: Expr, row: Expr, column: Expr, group: Expr, word: Expr) -> tuple[Expr, ...]:
        return tuple(load_plane(plane, n, row, column, group, word) for plane in range(specification.planes))

    return load


def differing_bits(words: tuple[Expr, ...], weights: Expr, lanes: int) -> Expr:
    """Per lane, the bits whose product is -1. ``words``: (sign,) or (nonzero, positive), in every lane the same."""
    if len(words) == 1:
        return spread(words[0], lanes) ^ weights
    nonzero, positive = words
    # Every positive value is nonzero, so that (positive ^ weights) & nonzero is positive ^ (weights & nonzero).
    return spread(positive, lanes) ^ (weights & spread(nonzero, lanes))
