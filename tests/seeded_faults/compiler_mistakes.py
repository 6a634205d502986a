"""Mistakes of the importer, the passes, the memory plan and the code generator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from onnx import numpy_helper
from tvm import relax

from bnn_deploy.codegen import plan_source
from bnn_deploy.dialect import importer
from bnn_deploy.passes import plan_memory
from bnn_deploy.passes.onnx import merge_heads
from bnn_deploy.passes.relax import (
    channels_last_rules,
    fold_affine,
    fold_threshold,
    fuse_epilogue,
    gather_shifts,
    kernel_specifications,
    lower_binary,
    merge_packs,
)
from bnn_deploy.passes.relax.expressions import constant_array, is_constant, static_shape
from bnn_deploy.plan import Argument, Space
from bnn_deploy.targets.kernels.kernel import Kernel

Patch = pytest.MonkeyPatch


# -- before packing: reference and bundle of level 1 share these


def plus_at_the_threshold_ignored(patch: Patch) -> None:
    """The importer reads Sign(0) = +1 as -1."""
    _read_zero_as_minus(patch, 1)


def zero_at_the_threshold_ignored(patch: Patch) -> None:
    """The importer reads Sign(0) = 0 as -1."""
    _read_zero_as_minus(patch, 0)


def _read_zero_as_minus(patch: Patch, zero: int) -> None:
    original = importer.call

    def call(name: str, arguments: list, attributes: object = None) -> object:
        changed = {"zero": -1} if name == "bnn.sign" and attributes["zero"] == zero else attributes
        return original(name, arguments, changed)

    patch.setattr(importer, "call", call)


def pads_read_in_the_wrong_order(patch: Patch) -> None:
    """The importer pads the other sides."""
    original = importer.ConvolutionAttributes

    def attributes(**fields: object) -> object:
        top, left, bottom, right = fields.pop("pads")
        return original(**fields, pads=(bottom, right, top, left))

    patch.setattr(importer, "ConvolutionAttributes", attributes)


def heads_added_not_averaged(patch: Patch) -> None:
    """Merged heads are added, not averaged."""

    def from_array(array: np.ndarray, name: str) -> object:
        return numpy_helper.from_array(2 * array, name)

    patch.setattr(merge_heads, "numpy_helper", SimpleNamespace(to_array=numpy_helper.to_array, from_array=from_array))


def threshold_not_negated(patch: Patch) -> None:
    """A sign of x + b > 0 becomes x > b."""
    patch.setattr(fold_threshold._FoldThreshold, "_negative", lambda self, bias: self.lookup(bias))


def scales_dropped(patch: Patch) -> None:
    """Folding drops scales."""
    _change_elementwise(patch, lambda step: replace(step, scale=np.ones_like(step.scale)))


def scales_of_the_next_channel(patch: Patch) -> None:
    """Folding takes the next channel's scale."""
    _change_elementwise(patch, lambda step: replace(step, scale=np.roll(step.scale, 1)))


def _change_elementwise(patch: Patch, change: Callable) -> None:
    original = fold_affine._elementwise

    def elementwise(value: object) -> object:
        step = original(value)
        return None if step is None else change(step)

    patch.setattr(fold_affine, "_elementwise", elementwise)


def batch_norm_shift_dropped(patch: Patch) -> None:
    """Folding drops the batch norm's shift."""
    _change_batch_norm(patch, lambda value, step: replace(step, shift=np.zeros_like(step.shift)))


def gamma_below_zero_ignored(patch: Patch) -> None:
    """Folding takes the magnitude of gamma."""
    _change_batch_norm(patch, lambda value, step: replace(step, scale=np.abs(step.scale)))


def epsilon_left_out(patch: Patch) -> None:
    """Folding leaves epsilon out."""

    def change(value: object, step: object) -> object:
        gamma, beta, mean, variance = (constant_array(p).astype(np.float64) for p in value.args[1:])
        scale = gamma / np.sqrt(variance)
        return replace(step, scale=scale, shift=beta - mean * scale)

    _change_batch_norm(patch, change)


def _change_batch_norm(patch: Patch, change: Callable) -> None:
    original = fold_affine._normalisation

    def normalisation(value: object) -> object:
        step = original(value)
        return None if step is None else change(value, step)

    patch.setattr(fold_affine, "_normalisation", normalisation)


def stem_kernel_transposed(patch: Patch) -> None:
    """Rows and columns of the stem's kernel are exchanged."""
    original = channels_last_rules.constant_array

    def array(expression: object) -> np.ndarray:
        values = original(expression)
        return values.swapaxes(2, 3) if values.ndim == 4 else values

    patch.setattr(channels_last_rules, "constant_array", array)


def mean_over_one_pixel_too_few(patch: Patch) -> None:
    """The mean divides by one pixel too few."""
    original = channels_last_rules.RULES["relax.mean"]

    def rule(layout: object, value: relax.Call) -> object:
        mean = original(layout, value)
        count = np.prod([static_shape(value.args[0])[axis] for axis in (2, 3)])
        return layout.emit(relax.op.multiply(mean, relax.const(np.float32(count / (count - 1)))))

    patch.setitem(channels_last_rules.RULES, "relax.mean", rule)


def rolled_rows_backwards(patch: Patch) -> None:
    """Rows are rolled in the other direction."""
    _change_rolls(patch, lambda s: replace(s, rows=-s.rows))


def rolled_columns_backwards(patch: Patch) -> None:
    """Columns are rolled in the other direction."""
    _change_rolls(patch, lambda s: replace(s, columns=-s.columns))


def rolled_one_row_too_far(patch: Patch) -> None:
    """Rows are rolled one too far."""
    _change_rolls(patch, lambda s: replace(s, rows=s.rows + 1) if s.rows else s)


def _change_rolls(patch: Patch, change: Callable) -> None:
    original = gather_shifts._GatherShifts._follow_roll

    def follow(self: object, variable: object, fields: list, axis: int) -> None:
        original(self, variable, fields, axis)
        if variable in self.segments:
            self.segments[variable] = tuple(change(segment) for segment in self.segments[variable])

    patch.setattr(gather_shifts._GatherShifts, "_follow_roll", follow)


# -- from packed Relax to the plan


def kernel_scales_of_the_next_channel(patch: Patch) -> None:
    """The kernel gets the next channel's scale."""
    original = Kernel.pack_scale
    patch.setattr(Kernel, "pack_scale", lambda self, scale: np.roll(original(self, scale), 1, axis=-1))


def threshold_one_float_higher(patch: Patch) -> None:
    """Thresholds are one float too high."""
    original = lower_binary._LowerBinary._reshaped

    def reshaped(self: object, x: object, shape: tuple) -> object:
        if is_constant(x):
            x = relax.const(np.nextafter(constant_array(x), np.float32(np.inf)))
        return original(self, x, shape)

    patch.setattr(lower_binary._LowerBinary, "_reshaped", reshaped)


def tap_scales_reversed(patch: Patch) -> None:
    """Scales of taps are in the other order."""
    original = Kernel.pack_scale

    def pack_scale(self: Kernel, scale: np.ndarray) -> np.ndarray:
        return original(self, scale[:, ::-1] if scale.ndim == 2 else scale)

    patch.setattr(Kernel, "pack_scale", pack_scale)


def pads_swapped(patch: Patch) -> None:
    """The kernel pads the other sides."""
    original = kernel_specifications.convolution_specification

    def specification(value: object) -> object:
        found = original(value)
        top, left, bottom, right = found.pads
        return replace(found, pads=(bottom, right, top, left))

    patch.setattr(kernel_specifications, "convolution_specification", specification)


def slopes_of_the_next_channel(patch: Patch) -> None:
    """PReLU takes the next channel's slope."""
    original = fuse_epilogue._FuseEpilogue._step

    def step(self: object, program: object, variable: object, known: dict) -> object:
        result = original(self, program, variable, known)
        if result is not None and program.steps[-1][0] == "prelu":
            _, number = program.steps[-1][2]
            program.vectors[number] = np.roll(program.vectors[number], 1)
        return result

    patch.setattr(fuse_epilogue._FuseEpilogue, "_step", step)


def averaged_shortcut_reads_one_half(patch: Patch) -> None:
    """An averaged shortcut's slices begin at 0."""
    original = fuse_epilogue.ImageOperand
    patch.setattr(fuse_epilogue, "ImageOperand", lambda channels, first, width: original(channels, 0, width))


def sibling_thresholds_exchanged(patch: Patch) -> None:
    """Sibling signs of a tensor exchange thresholds."""
    patch.setattr(merge_packs, "np", SimpleNamespace(stack=lambda vectors: np.stack(vectors[::-1]), ndarray=np.ndarray))


def buffers_end_one_step_early(patch: Patch) -> None:
    """Buffers may be overwritten one step early."""
    original = plan_memory._Frame.read

    def read(self: object, expression: object, step: int) -> object:
        return original(self, expression, max(step - 1, 0))

    patch.setattr(plan_memory._Frame, "read", read)


def constants_taken_for_equal(patch: Patch) -> None:
    """Different constants are stored once."""
    original = plan_memory.Constants.argument

    def argument(self: plan_memory.Constants, data: bytes) -> Argument:
        key = bytes([sum(data) % 8]) + len(data).to_bytes(8, "little")
        if key in self.offsets:
            return Argument(Space.WEIGHTS, self.offsets[key])
        self.offsets[key] = original(self, data).offset
        return Argument(Space.WEIGHTS, self.offsets[key])

    patch.setattr(plan_memory.Constants, "argument", argument)


def blocks_of_rows_in_one_place(patch: Patch) -> None:
    """Every block of rows is stored in the same place."""
    original = plan_source._expression

    def expression(argument: Argument, plan: object) -> str | None:
        return original(replace(argument, stride=0) if argument.space is Space.ARENA else argument, plan)

    patch.setattr(plan_source, "_expression", expression)
