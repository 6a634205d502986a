"""Mistakes in kernels: what x86-64 or arm64 is told to compute is not what packed Relax says."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from tvm.ir import Expr
from tvm.tirx.script import builder as T

from bnn_deploy.targets.kernels import epilogue, weights
from bnn_deploy.targets.kernels.binary import (
    binary_conv2d,
    carry_save_conv2d,
    carry_tree_conv2d,
    convolution_tile,
    gathered_conv2d,
    gathered_pixel,
    tile_store,
)
from bnn_deploy.targets.kernels.binary.carry_save_chain import Chain
from bnn_deploy.targets.kernels.binary.carry_tree_adders import paired
from bnn_deploy.targets.kernels.depthwise import depthwise_conv2d
from bnn_deploy.targets.kernels.packing import bitpack, shift_words
from bnn_deploy.targets.kernels.vector import FLOAT, INTEGER, WORD, cast, constant, lanes_at, let, spread, vector_type
from bnn_deploy.targets.kernels.words import WORD_BITS

Patch = pytest.MonkeyPatch


# -- bits and words


def weight_bits_reversed(patch: Patch) -> None:
    """Weights are unpacked from the most significant bit on."""

    def unpack(packed: np.ndarray, count: int) -> np.ndarray:
        return 2 * np.unpackbits(packed, axis=-1, count=count, bitorder="big").astype(np.int8) - 1

    patch.setattr(weights, "unpack_bits", unpack)


def weight_bytes_swapped(patch: Patch) -> None:
    """The bytes of a word of weights are in the other order."""
    original = weights.as_words
    patch.setattr(weights, "as_words", lambda packed: original(packed).byteswap())


def weight_words_swapped(patch: Patch) -> None:
    """The words of a tap's weights are in the other order."""
    for module in (carry_tree_conv2d, carry_save_conv2d):
        _change_weight_words(patch, module, lambda words, layer: np.ascontiguousarray(words[..., ::-1]))


def weight_tail_bits_set(patch: Patch) -> None:
    """Weight bits beyond the last channel are 1."""

    def filled(words: np.ndarray, layer: object) -> np.ndarray:
        result, tail = words.copy(), layer.group_channels % WORD_BITS
        result[..., -1] |= np.uint32((0xFFFFFFFF << tail) & 0xFFFFFFFF) if tail else np.uint32(0)
        return result

    _change_weight_words(patch, carry_tree_conv2d, filled)


def _change_weight_words(patch: Patch, module: object, change: Callable) -> None:
    original = module.weight_words
    patch.setattr(module, "weight_words", lambda packed, layer: change(original(packed, layer), layer))


def activation_bits_reversed(patch: Patch) -> None:
    """Channel 0 is the most significant bit."""
    original = bitpack.packed_bits

    def packed(*arguments: object) -> Expr:
        return T.call_llvm_pure_intrin(WORD, "llvm.bitreverse", original(*arguments))

    patch.setattr(bitpack, "packed_bits", packed)


def activation_words_swapped(patch: Patch) -> None:
    """The words of a pixel are in the other order."""
    original = bitpack.words_of
    patch.setattr(bitpack, "words_of", lambda compare, word, *rest: original(compare, 1 - word, *rest))


def activation_tail_bits_set(patch: Patch) -> None:
    """Bits beyond the last channel are 1."""
    original = bitpack.words_of

    def words(compare: Callable, word: object, count: int, bits: int, architecture: str) -> Expr:
        found = original(compare, word, count, bits, architecture)
        return found if bits == WORD_BITS else found | T.uint32((0xFFFFFFFF << bits) & 0xFFFFFFFF)

    patch.setattr(bitpack, "words_of", words)


def arm_bytes_of_a_word_swapped(patch: Patch) -> None:
    """Pairwise sums of bytes are in the other order."""
    original = bitpack.pairwise_sums
    patch.setattr(bitpack, "pairwise_sums", lambda registers: original(list(registers)[::-1]))


def planes_swapped(patch: Patch) -> None:
    """The planes of a three-valued sign are exchanged."""

    def store_planes(result, positive, negative, place, architecture):
        pixel, word, words, bits = place
        width = int(result.shape[2])
        upper = let("positive", bitpack.words_of(positive, word, words, bits, architecture))
        lower = bitpack.words_of(negative, word, words, bits, architecture)
        for plane, packed in enumerate((upper, upper | lower)):
            T.buffer_store(result, packed, [pixel // width, plane, pixel % width, lanes_at(word, words)])

    patch.setattr(bitpack, "store_planes", store_planes)


def nonzero_plane_ignored(patch: Patch) -> None:
    """A three-valued sign's 0 counts as -1."""
    original = convolution_tile.differing_bits
    patch.setattr(convolution_tile, "differing_bits", lambda words, weight, lanes: original(words[-1:], weight, lanes))


# -- comparisons


def zero_is_plus(patch: Patch) -> None:
    """The kernel gives +1 at the threshold."""
    patch.setattr(bitpack, "above", lambda values, bounds, zero: values >= bounds)


def zeros_are_ordered(patch: Patch) -> None:
    """-0.0 is less than +0.0."""

    def key(values: Expr) -> Expr:
        lanes = values.ty.dtype.lanes
        bits = T.reinterpret(vector_type(INTEGER, lanes), values)
        shift, largest = constant(31, INTEGER, lanes), constant(0x7FFFFFFF, INTEGER, lanes)
        return bits ^ ((bits >> shift) & largest)

    patch.setattr(bitpack, "above", lambda values, bounds, zero: key(values) > key(bounds))


def rounding_threshold_one_float_lower(patch: Patch) -> None:
    """Ternary's 0.5 is one float too low."""
    patch.setattr(bitpack, "TERNARY_THRESHOLD", float(np.nextafter(np.float32(0.5), np.float32(0))))


# -- padding, strides, groups, rows


def padding_is_minus_one(patch: Patch) -> None:
    """Zero padding counts as -1."""
    patch.setattr(gathered_pixel, "taps_inside", lambda first, kernel, *limits: kernel)


def padding_is_plus_one(patch: Patch) -> None:
    """Zero padding counts as +1."""
    padding_is_minus_one(patch)
    original = gathered_pixel.constant

    def ones(value: int, element: str, lanes: int = 1) -> Expr:
        bits = original(0xFFFFFFFF, element, lanes)
        return paired(bits, lanes) if lanes > 1 else bits

    patch.setattr(gathered_pixel, "constant", ones)


def column_stride_ignored(patch: Patch) -> None:
    """The stride along a row is ignored."""

    def image_column(self: convolution_tile.ConvolutionTile, p: object, kernel_column: object) -> object:
        return self.position.column + p + kernel_column - self.layer.pads[1]

    patch.setattr(convolution_tile.ConvolutionTile, "image_column", image_column)


def groups_reversed(patch: Patch) -> None:
    """The groups of a convolution are mixed up."""
    original = binary_conv2d.group_word_loader

    def loader(image: object, layer: object) -> Callable:
        load = original(image, layer)
        return lambda n, row, column, group, word: load(n, row, column, layer.group - 1 - group, word)

    patch.setattr(binary_conv2d, "group_word_loader", loader)


def previous_block_of_rows(patch: Patch) -> None:
    """A block computes the rows of the block before it."""
    original = gathered_conv2d.block_origin

    def origin(layer: object) -> tuple:
        image, row = original(layer)
        return image, (T.max(row - layer.block_rows, 0) if layer.block_rows else row)

    patch.setattr(gathered_conv2d, "block_origin", origin)


def words_rolled_backwards(patch: Patch) -> None:
    """The kernel rolls in the other direction."""
    original = shift_words.wrapped
    patch.setattr(shift_words, "wrapped", lambda position, shift, extent: original(position, -shift, extent))


def depthwise_taps_reversed(patch: Patch) -> None:
    """A depthwise kernel is mirrored."""
    original = depthwise_conv2d.channel_words
    patch.setattr(
        depthwise_conv2d, "channel_words", lambda packed, specification: original(packed, specification)[::-1]
    )


def chain_inverts_the_wrong_step(patch: Patch) -> None:
    """A carry-save chain inverts the wrong step."""
    patch.setattr(Chain, "inverted", lambda self, index: index % 4 == 0 and index < self.chained)


# -- sums and what follows them


def dot_product_one_too_large(patch: Patch) -> None:
    """Integer sums are one too large."""
    _change_dot_products(patch, lambda dot, lanes: dot + constant(1, INTEGER, lanes))


def dot_product_in_eight_bits(patch: Patch) -> None:
    """Integer sums are kept in 8 bits."""
    _change_dot_products(patch, lambda dot, lanes: cast(cast(dot, "int8", lanes), INTEGER, lanes))


def _change_dot_products(patch: Patch, change: Callable[[Expr, int], Expr]) -> None:
    patch.setattr(gathered_conv2d, "cast", lambda dot, element, lanes: cast(change(dot, lanes), element, lanes))


def counter_in_eight_bits(patch: Patch) -> None:
    """Popcounts are added up in 8 bits."""

    def dot_product(self: convolution_tile.ConvolutionTile, p: object, v: object) -> Expr:
        differing = self.differing[self.at(self.differing, p, v)] & constant(0xFF, INTEGER, self.lanes)
        return cast(spread(self.valid[p], self.lanes) - (differing + differing), FLOAT, self.lanes)

    patch.setattr(convolution_tile.ConvolutionTile, "dot_product", dot_product)


def product_rounded_before_the_sum(patch: Patch) -> None:
    """Fma becomes a product and a sum."""

    def multiply_add(a: Expr, b: Expr, c: Expr, lanes: int) -> Expr:
        # Without the fence LLVM makes one fma of both again.
        return T.call_llvm_pure_intrin(vector_type(FLOAT, lanes), "llvm.arithmetic.fence", a * b) + c

    patch.setattr(gathered_conv2d, "fused_multiply_add", multiply_add)


def shortcut_dropped(patch: Patch) -> None:
    """The epilogue drops the shortcut."""

    def compute(self: epilogue.Epilogue, sums: Expr, image: Callable, vector: Callable, lanes: int) -> Expr:
        images = {1 + index for index in range(len(self.images))}
        numbers = {}
        steps = []
        for index, (name, left, right) in enumerate(self.steps):
            left, right = numbers.get(left, left), numbers.get(right, right)
            if name == "add" and len({left, right} & images) == 1:
                numbers[1 + len(self.images) + self.vectors + index] = right if left in images else left
            steps.append((name, left, right))
        changed = epilogue.Epilogue(self.images, self.vectors, tuple(steps), self.stores, self.planes, self.zero)
        return original(changed, sums, image, vector, lanes)

    original = epilogue.Epilogue.compute
    patch.setattr(epilogue.Epilogue, "compute", compute)


def tiled_shortcut_does_not_repeat(patch: Patch) -> None:
    """A tiled shortcut does not begin anew."""

    def channel(operand: epilogue.ImageOperand, output: object) -> object:
        return operand.first + T.min(output, operand.width - 8)

    patch.setattr(tile_store, "operand_channel", channel)


def prelu_takes_zero_as_positive(patch: Patch) -> None:
    """PReLU compares with >=."""
    original = epilogue._step

    def step(name: str, left: Expr, right: Expr, lanes: int) -> Expr:
        if name == "prelu":
            return T.Select(left >= constant(0, FLOAT, lanes), left, left * right)
        return original(name, left, right, lanes)

    patch.setattr(epilogue, "_step", step)
