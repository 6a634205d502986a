"""The table of seeded faults: each is one mistake in one function of the compiler, as a defect would look.

``level`` is the lowest that must fail. A mistake made before networks are packed is made for both sides of level 1, which then
passes, and level 2, whose reference is the ONNX file, must see it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from tests.seeded_faults import compiler_mistakes as compiler
from tests.seeded_faults import kernel_mistakes as kernel

Apply = Callable[[pytest.MonkeyPatch], None]


@dataclass(frozen=True)
class Fault:
    """One mistake.

    Attributes:
        name: of the test.
        what: the mistake in one sentence, for the table in docs/parity.md.
        apply: makes it.
        network: name in ``networks.NETWORKS``.
        first_layer: the node that the first failing row must name; None where the mistake is in no one layer.
        level: the lowest level that must fail.
    """

    name: str
    what: str
    apply: Apply
    network: str
    first_layer: str | None
    level: int


def _fault(apply: Apply, network: str, first_layer: str | None, level: int) -> Fault:
    what = (apply.__doc__ or "").removesuffix(".")
    name = apply.__name__.replace("_", "-") + ("-arm64" if network.endswith("arm64") else "")
    return Fault(name, what, apply, network, first_layer, level)


FAULTS = (
    # Bits and words
    _fault(kernel.weight_bits_reversed, "residual", "conv0", 1),
    _fault(kernel.weight_bytes_swapped, "residual", "conv0", 1),
    _fault(kernel.weight_words_swapped, "residual", "conv0", 1),
    _fault(kernel.weight_tail_bits_set, "cut", "conv3", 1),
    _fault(kernel.activation_bits_reversed, "residual", "sign0", 1),
    _fault(kernel.activation_words_swapped, "rolls", "sign0", 1),
    _fault(kernel.activation_tail_bits_set, "cut", "sign0", 1),
    _fault(kernel.planes_swapped, "cut", "sign0", 1),
    _fault(kernel.nonzero_plane_ignored, "cut", "conv0", 1),
    # Signs
    _fault(kernel.zero_is_plus, "residual", "sign0", 1),
    _fault(compiler.plus_at_the_threshold_ignored, "cut", "side_sign", 2),
    _fault(compiler.zero_at_the_threshold_ignored, "cut", "sign0", 2),
    _fault(kernel.zeros_are_ordered, "residual", "sign0", 1),
    _fault(kernel.rounding_threshold_one_float_lower, "cut", "round1", 1),
    _fault(compiler.threshold_one_float_higher, "residual", "sign0", 1),
    _fault(compiler.threshold_not_negated, "residual", "sign0", 2),
    _fault(compiler.sibling_thresholds_exchanged, "residual", "sign1", 1),
    # Padding, strides, groups, rolls
    _fault(kernel.padding_is_minus_one, "residual", "conv0", 1),
    _fault(kernel.padding_is_plus_one, "residual", "conv0", 1),
    _fault(compiler.pads_swapped, "cut", "conv0", 1),
    _fault(compiler.pads_read_in_the_wrong_order, "cut", "conv0", 2),
    _fault(kernel.column_stride_ignored, "cut", "conv0", 1),
    _fault(kernel.groups_reversed, "cut", "conv2", 1),
    _fault(kernel.depthwise_taps_reversed, "cut", "side", 1),
    _fault(kernel.words_rolled_backwards, "rolls", "rolled", 1),
    _fault(compiler.rolled_rows_backwards, "rolls", "rolled", 2),
    _fault(compiler.rolled_columns_backwards, "rolls", "rolled", 2),
    _fault(compiler.rolled_one_row_too_far, "rolls", "rolled", 2),
    # Sums
    _fault(kernel.dot_product_one_too_large, "residual", "conv0", 1),
    _fault(kernel.dot_product_in_eight_bits, "residual", "conv0", 1),
    _fault(kernel.counter_in_eight_bits, "cut", "conv0", 1),
    # Scales, batch norms, what follows a layer
    _fault(kernel.product_rounded_before_the_sum, "residual", "conv0", 1),
    _fault(compiler.kernel_scales_of_the_next_channel, "residual", "conv0", 1),
    _fault(compiler.scales_of_the_next_channel, "cut", "side", 2),
    _fault(compiler.scales_dropped, "cut", "side", 2),
    _fault(compiler.tap_scales_reversed, "cut", "conv1", 1),
    _fault(compiler.batch_norm_shift_dropped, "residual", "norm0", 2),
    _fault(compiler.epsilon_left_out, "residual", "norm0", 2),
    _fault(compiler.gamma_below_zero_ignored, "residual", "norm0", 2),
    _fault(kernel.prelu_takes_zero_as_positive, "rolls", "prelu0", 1),
    _fault(compiler.slopes_of_the_next_channel, "residual", "act0.act", 1),
    _fault(kernel.shortcut_dropped, "residual", "conv0", 1),
    _fault(kernel.tiled_shortcut_does_not_repeat, "rolls", "fc1", 1),
    _fault(compiler.averaged_shortcut_reads_one_half, "rolls", "fc2", 1),
    # Float layers
    _fault(compiler.stem_kernel_transposed, "residual", "stem", 2),
    _fault(compiler.mean_over_one_pixel_too_few, "residual", "ReduceMean", 2),
    _fault(compiler.heads_added_not_averaged, "rolls", "head", 2),
    # Memory
    _fault(compiler.buffers_end_one_step_early, "residual", None, 1),
    _fault(compiler.constants_taken_for_equal, "residual", None, 1),
    _fault(compiler.blocks_of_rows_in_one_place, "residual", "sign0", 1),
    _fault(kernel.previous_block_of_rows, "residual", "conv0", 1),
    # Kernels of arm64
    _fault(kernel.arm_bytes_of_a_word_swapped, "residual-arm64", "sign0", 1),
    _fault(kernel.zero_is_plus, "residual-arm64", "sign0", 1),
    _fault(kernel.chain_inverts_the_wrong_step, "residual-arm64", "conv0", 1),
    _fault(kernel.padding_is_minus_one, "residual-arm64", "conv0", 1),
    _fault(kernel.weight_words_swapped, "residual-arm64", "conv0", 1),
    _fault(kernel.product_rounded_before_the_sum, "residual-arm64", "conv0", 1),
)
