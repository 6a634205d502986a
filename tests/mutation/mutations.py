"""Deliberate mistakes: each replaces one function or class of the real code by a wrong one.

``EXPORT`` mistakes are made while a model is written to ONNX, ``COMPILE`` ones while the file is compiled.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from tvm.tirx.script import builder as T

from bnn_deploy import export_layers, importer
from bnn_deploy.passes import plan_memory
from bnn_deploy.passes.onnx import merge_heads
from bnn_deploy.passes.relax import drop_identity, fold_affine, fold_threshold, lower_binary, pack
from bnn_deploy.passes.relax.rewriter import static_shape
from bnn_deploy.targets.kernels import (
    binary_conv2d,
    bitpack,
    convolution_tile,
    shift_words,
    valid_products,
    weights,
)

Patch = pytest.MonkeyPatch
Mutation = Callable[[Patch], None]


# -- mistakes of the exporter


def bits_in_the_other_order(patch: Patch) -> None:
    """The most significant bit of a byte is the first weight."""
    patch.setattr(export_layers, "pack_bits", lambda signs: np.packbits(signs > 0, axis=-1, bitorder="big"))


def weights_channels_first(patch: Patch) -> None:
    """A row of weights runs over (c, kh, kw) instead of (kh, kw, c)."""

    def packed(rows: torch.Tensor) -> torch.Tensor:
        taps = {360: 9, 72: 3}.get(rows.shape[1], 1)
        return original(rows.reshape(len(rows), taps, -1).transpose(1, 2).flatten(1))

    original = export_layers._packed
    patch.setattr(export_layers, "_packed", packed)


def weights_negated(patch: Patch) -> None:
    """Bit 1 means -1."""
    original = export_layers._packed
    patch.setattr(export_layers, "_packed", lambda rows: original(-rows))


def sign_of_zero_is_plus(patch: Patch) -> None:
    """Sign(0) = +1 in the file."""

    def forward(self: export_layers.ExportedSign, x: torch.Tensor) -> torch.Tensor:
        return self.emit("Sign", [x, torch.zeros(())], list(x.shape), {"zero": 1})

    patch.setattr(export_layers.ExportedSign, "forward", forward)


def ternary_is_a_sign(patch: Patch) -> None:
    """Values near 0 become -1 or +1."""
    patch.setattr(export_layers.ExportedTernary, "forward", export_layers.ExportedSign.forward)


def padding_on_one_side(patch: Patch) -> None:
    """All padding before the image, none after it."""
    original = export_layers.ExportedConv.forward

    def forward(self: export_layers.ExportedConv, x: torch.Tensor) -> torch.Tensor:
        top, left, bottom, right = self.attributes["pads"]
        self.attributes["pads"] = [top + bottom, left + right, 0, 0]
        return original(self, x)

    patch.setattr(export_layers.ExportedConv, "forward", forward)


def scale_forgotten(patch: Patch) -> None:
    """The Mul by mean(abs(weight)) is not written."""
    original = export_layers.ExportedConv.forward

    def forward(self: export_layers.ExportedConv, x: torch.Tensor) -> torch.Tensor:
        if self.scaling == "channel":
            self.scale = None
        return original(self, x)

    patch.setattr(export_layers.ExportedConv, "forward", forward)


EXPORT: tuple[Mutation, ...] = (
    bits_in_the_other_order,
    weights_channels_first,
    weights_negated,
    sign_of_zero_is_plus,
    ternary_is_a_sign,
    padding_on_one_side,
    scale_forgotten,
)


# -- mistakes of the compiler


def weight_bits_in_the_other_order(patch: Patch) -> None:
    """The kernel's weights are unpacked from the most significant bit on."""

    def unpack(packed: np.ndarray, count: int) -> np.ndarray:
        return 2 * np.unpackbits(packed, axis=-1, count=count, bitorder="big").astype(np.int8) - 1

    patch.setattr(weights, "unpack_bits", unpack)


def activation_bits_in_the_other_order(patch: Patch) -> None:
    """The first channel sits in a word's most significant bit."""
    original = bitpack.packed_bits

    def packed(*arguments: object) -> object:
        return T.call_llvm_pure_intrin("uint32", "llvm.bitreverse", original(*arguments))

    patch.setattr(bitpack, "packed_bits", packed)


def kernel_sign_of_zero_is_plus(patch: Patch) -> None:
    """The kernel compares with >= where the file says >."""
    original = lower_binary.SignPackSpecification
    patch.setattr(lower_binary, "SignPackSpecification", lambda *sizes, threshold_shape, zero: original(
        *sizes, threshold_shape=threshold_shape, zero=-zero
    ))  # fmt: skip


def kernel_zero_of_a_sign_is_minus(patch: Patch) -> None:
    """The kernel packs -1 where a sign of three values is at its threshold."""
    patch.setattr(bitpack, "below", lambda values, bounds: values <= bounds)


def sign_of_three_values_is_one_of_two(patch: Patch) -> None:
    """Sign(0) = 0 in the file is read as -1."""
    original = importer.call

    def call(name: str, arguments: list, attributes: dict | None = None) -> object:
        changed = {"zero": attributes["zero"] or -1} if name == "bnn.sign" else attributes
        return original(name, arguments, changed)

    patch.setattr(importer, "call", call)


def threshold_not_negated(patch: Patch) -> None:
    """x + b > 0 becomes x > b."""
    patch.setattr(fold_threshold._FoldThreshold, "_negative", lambda self, bias: self.lookup(bias))


def padding_counts_as_plus_one(patch: Patch) -> None:
    """Taps outside of the image count as products of +1."""
    patch.setattr(valid_products, "taps_inside", lambda first, kernel, *limits: kernel)


def padding_moved(patch: Patch) -> None:
    """One row of padding moves from below the image to above it."""
    original = lower_binary.ConvolutionSpecification

    def moved(**fields: object) -> object:
        specification = original(**fields)
        top, left, bottom, right = specification.pads
        return replace(specification, pads=(top + 1, left, bottom - 1, right)) if bottom else specification

    patch.setattr(lower_binary, "ConvolutionSpecification", moved)


def kernel_scale_forgotten(patch: Patch) -> None:
    """Multiplications by constants are dropped."""
    original = fold_affine._elementwise

    def elementwise(value: object) -> object:
        step = original(value)
        return None if step is None else replace(step, scale=np.ones_like(step.scale))

    patch.setattr(fold_affine, "_elementwise", elementwise)


def tap_scales_reversed(patch: Patch) -> None:
    """The first tap gets the last tap's scale."""
    original = lower_binary.constant_array

    def array(expression: object) -> np.ndarray:
        values = original(expression)
        return values[:, ::-1] if values.dtype == np.float32 and values.ndim == 2 else values

    patch.setattr(lower_binary, "constant_array", array)


def batch_norm_shift_dropped(patch: Patch) -> None:
    """The batch norm only scales."""
    _change_batch_norm(patch, lambda step: replace(step, shift=np.zeros_like(step.shift)))


def negative_gamma_dropped(patch: Patch) -> None:
    """The batch norm takes the magnitude of gamma, as formulas for thresholds like to assume."""
    _change_batch_norm(patch, lambda step: replace(step, scale=np.abs(step.scale)))


def _change_batch_norm(patch: Patch, change: Callable) -> None:
    original = fold_affine._normalisation

    def normalisation(value: object) -> object:
        step = original(value)
        return None if step is None else change(step)

    patch.setattr(fold_affine, "_normalisation", normalisation)


def roll_in_the_other_direction(patch: Patch) -> None:
    """Slices of words are taken from the other end of their axis, and joined in the other order."""
    slice_of, moved_from = pack.slice_of, pack.moved_from

    def mirrored(value: object, values: object) -> tuple:
        axes, begin, end, strides = slice_of(value, values)
        extents = [static_shape(value.args[0])[axis] for axis in axes]
        flipped = [[extent - at for extent, at in zip(extents, ends, strict=True)] for ends in (end, begin)]
        return axes, *flipped, strides

    def reversed_order(value: object, values: object) -> list | None:
        sources = moved_from(value, values)
        return None if sources is None else sources[::-1]

    patch.setattr(pack, "slice_of", mirrored)
    patch.setattr(pack, "moved_from", reversed_order)


def slices_off_by_one(patch: Patch) -> None:
    """Slices of words that do not begin at 0 begin one element early."""
    original = pack.slice_of

    def shifted(value: object, values: object) -> tuple:
        axes, begin, end, strides = original(value, values)
        early = [int(at > 0) for at in begin]
        begin, end = ([at - step for at, step in zip(ends, early, strict=True)] for ends in (begin, end))
        return axes, begin, end, strides

    patch.setattr(pack, "slice_of", shifted)


def roll_dropped(patch: Patch) -> None:
    """Every concatenation of the right size is taken for its first part's source."""
    original = drop_identity._DropIdentity.rewrite

    def rewrite(self: object, variable: object, value: object) -> object:
        if drop_identity.operator_name(value) == "relax.concat":
            source = self.values[value.args[0].fields[0]].args[0]
            if static_shape(source) == static_shape(variable):
                return self.lookup(source)
        return original(self, variable, value)

    patch.setattr(drop_identity._DropIdentity, "rewrite", rewrite)


def tail_bits_not_masked(patch: Patch) -> None:
    """Weight bits beyond the last channel are 1 where the activations have 0."""
    original = binary_conv2d.weight_words

    def words(packed: np.ndarray, specification: object) -> np.ndarray:
        result = original(packed, specification).copy()
        tail = specification.group_channels % 32
        result[..., -1] |= np.uint32((0xFFFFFFFF << tail) & 0xFFFFFFFF) if tail else np.uint32(0)
        return result

    patch.setattr(binary_conv2d, "weight_words", words)


def ternary_mask_ignored(patch: Patch) -> None:
    """Zeros of ternary activations count as -1."""
    original = convolution_tile.differing_bits
    patch.setattr(convolution_tile, "differing_bits", lambda words, weight, lanes: original(words[-1:], weight, lanes))


def buffers_freed_too_early(patch: Patch) -> None:
    """A buffer may be overwritten by the step after the one that writes it, whoever reads it then or later."""

    def read(self: object, expression: object, step: int) -> object:
        moving = original(self, expression, step)
        moving.buffer.last = moving.buffer.first
        return moving

    original = plan_memory._Frame.read
    patch.setattr(plan_memory._Frame, "read", read)


def one_head_lost(patch: Patch) -> None:
    """The mean of two heads becomes the first one."""
    original = merge_heads._averaged_heads

    def averaged(*arguments: object) -> object:
        heads = original(*arguments)
        if heads is not None:
            del heads[1].input[1:]
            heads[1].input.extend(heads[0].input[1:])
        return heads

    patch.setattr(merge_heads, "_averaged_heads", averaged)


def every_block_reads_the_first_rows(patch: Patch) -> None:
    """A convolution that is given an image as a whole forgets which block of rows it computes."""
    original = binary_conv2d.block_origin
    patch.setattr(binary_conv2d, "block_origin", lambda specification: (original(specification)[0], 0))


def words_shifted_the_other_way(patch: Patch) -> None:
    """Words of a roll come from the opposite side."""
    original = shift_words.wrapped
    patch.setattr(shift_words, "wrapped", lambda position, shift, extent: original(position, -shift, extent))


COMPILE: tuple[Mutation, ...] = (
    weight_bits_in_the_other_order,
    activation_bits_in_the_other_order,
    kernel_sign_of_zero_is_plus,
    kernel_zero_of_a_sign_is_minus,
    sign_of_three_values_is_one_of_two,
    threshold_not_negated,
    padding_counts_as_plus_one,
    padding_moved,
    kernel_scale_forgotten,
    tap_scales_reversed,
    batch_norm_shift_dropped,
    negative_gamma_dropped,
    roll_in_the_other_direction,
    slices_off_by_one,
    roll_dropped,
    tail_bits_not_masked,
    ternary_mask_ignored,
    buffers_freed_too_early,
    one_head_lost,
    every_block_reads_the_first_rows,
    words_shifted_the_other_way,
)
