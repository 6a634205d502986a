"""block_rows: what runs together block of rows by block of rows, what is stored in between, and that it computes the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tvm import relax

from bnn_deploy.dialect.operators import call
from bnn_deploy.passes.pipeline import lower_packed
from bnn_deploy.passes.relax import block_rows as block_rows_module
from bnn_deploy.passes.relax.block_rows import RowStage, StagedNetwork, block_rows
from bnn_deploy.passes.relax.row_rules import Rows, row_reads
from bnn_deploy.targets.registry import host_target
from tests.passes.evaluate import evaluate
from tests.passes.execute import run_plan
from tests.passes.networks import build, constant, convolution, geometry, operators

POINTWISE = geometry(32, channels_last=1)
SQUARE = geometry(32, (3, 3), pads=(1, 1, 1, 1), channels_last=1)
STRIDED = geometry(32, (3, 3), (2, 2), (1, 1, 1, 1), channels_last=1)
TALL = geometry(32, (7, 1), pads=(3, 0, 3, 0), group=32, channels_last=1)
WIDE = geometry(32, (1, 7), pads=(0, 3, 0, 3), group=32, channels_last=1)


def pack(x: relax.Expr, threshold: object = 0.5) -> relax.Call:
    bound = threshold if isinstance(threshold, relax.Expr) else constant([threshold])
    return call("bnn.sign_pack", [x, bound], {"zero": -1})


def layer(words: relax.Expr, attributes: object, seed: int = 0, name: str = "bnn.packed_conv2d") -> relax.Call:
    return convolution(words, 32, attributes, scale=np.linspace(-2, 2, 32).round(), name=name, seed=seed)


def residual(emit: Callable, x: relax.Expr, attributes: object, seed: int) -> relax.Var:
    """sign, layer, shortcut, PReLU: one layer of a ReActNet block."""
    y = emit(layer(emit(pack(x)), attributes, seed))
    slope = constant(np.arange(32) % 5 / 2 - 1)
    return emit(relax.op.nn.prelu(emit(relax.op.add(y, x)), slope, axis=3))


def two_layers(emit: Callable, x: relax.Expr) -> relax.Expr:
    return residual(emit, residual(emit, x, SQUARE, 1), POINTWISE, 2)


def pooled_shortcut(emit: Callable, x: relax.Expr) -> relax.Expr:
    x = residual(emit, x, SQUARE, 1)
    pooled = emit(relax.op.nn.avg_pool2d(x, (2, 2), (2, 2), layout="NHWC"))
    return relax.op.add(emit(layer(emit(pack(x)), STRIDED, 2)), pooled)


def threshold_of_the_image(emit: Callable, x: relax.Expr) -> relax.Expr:
    """BCDNet-B: the threshold depends on the image's mean."""
    x = residual(emit, x, POINTWISE, 1)
    mean = emit(relax.op.mean(emit(relax.op.mean(x, [2], keepdims=True)), [1], keepdims=True))
    y = emit(layer(emit(pack(x, mean)), POINTWISE, 2))
    return relax.op.add(y, mean)


def tall_and_wide(emit: Callable, x: relax.Expr) -> relax.Expr:
    """BiMLP's 1x7 and 7x1 branches of one tensor, and a sum with a constant that is needed late."""
    x = residual(emit, x, POINTWISE, 1)
    moved = emit(relax.op.add(x, constant(np.arange(32.0))))
    tall = emit(layer(emit(pack(x, 0.5)), TALL, 2))
    wide = emit(layer(emit(pack(x, -0.5)), WIDE, 3))
    return relax.op.add(emit(relax.op.add(tall, wide)), moved)


def three_valued(emit: Callable, x: relax.Expr) -> relax.Expr:
    """Planes of three-valued words, read by rows and as a whole."""
    pointwise, tall = (
        geometry(32, g.kernel_shape, pads=g.pads, group=g.group, ternary=1, channels_last=1) for g in (POINTWISE, TALL)
    )
    x = residual(emit, x, POINTWISE, 1)
    words = emit(call("bnn.ternary_pack", [x]))
    return relax.op.add(emit(layer(words, pointwise, 2)), emit(layer(words, tall, 3)))


def three_valued_signs(emit: Callable, x: relax.Expr) -> relax.Expr:
    """The same, of signs that are 0 at a threshold."""
    pointwise, tall = (
        geometry(32, g.kernel_shape, pads=g.pads, group=g.group, ternary=1, channels_last=1) for g in (POINTWISE, TALL)
    )
    x = residual(emit, x, POINTWISE, 1)
    words, others = (emit(call("bnn.sign_pack", [x, constant([t])], {"zero": 0})) for t in (0.0, 1.0))
    return relax.op.add(emit(layer(words, pointwise, 2)), emit(layer(others, tall, 3)))


def channel_slices(emit: Callable, x: relax.Expr) -> relax.Expr:
    x = residual(emit, x, POINTWISE, 1)
    low, high = (emit(relax.op.strided_slice(x, [3], [b], [b + 16], [1])) for b in (0, 16))
    return relax.op.concat([high, emit(relax.op.add(low, high))], axis=3)


NETWORKS = [
    two_layers,
    pooled_shortcut,
    threshold_of_the_image,
    tall_and_wide,
    three_valued,
    three_valued_signs,
    channel_slices,
]


def staged(body: Callable, shape: tuple[int, ...] = (1, 8, 4, 32)) -> StagedNetwork:
    return block_rows(build([shape], body))


def only_stage(network: StagedNetwork, number: int) -> RowStage:
    return network.stages[f"stage_{number}"]


def constant_of_rows(emit: Callable, x: relax.Expr) -> relax.Expr:
    """A constant of three axes, whose first is that of the rows; and a clip, whose bounds are no tensors."""
    rows = int(x.ty.shape.values[1])
    x = residual(emit, x, POINTWISE, 1)
    by_row = emit(relax.op.maximum(x, constant(np.arange(rows).reshape(rows, 1, 1) - 2)))
    return relax.op.clip(by_row, -3, 3)


NETWORKS.append(constant_of_rows)


@pytest.mark.parametrize("body", NETWORKS, ids=lambda body: body.__name__)
@pytest.mark.parametrize("block_bytes", [1, 1 << 20])
@pytest.mark.parametrize("shape", [(1, 8, 4, 32), (3, 4, 8, 32)])
def test_stages_compute_the_network(
    body: Callable, block_bytes: int, shape: tuple[int, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks: a block reads rows that another stage has not computed yet, of another image, or writes in the wrong place."""
    monkeypatch.setattr(block_rows_module, "BLOCK_BYTES", block_bytes)
    module = build([shape], body)
    # Whole numbers, and means of powers of two of them: float32 holds every value exactly, whatever the order of sums.
    x = np.random.default_rng(0).integers(-6, 7, shape).astype("float32")
    lowered = lower_packed(module, host_target())
    assert max(stage.blocks for stage in lowered.plan.stages) >= 2 * shape[0]
    found = run_plan(lowered, host_target(), x, tmp_path)
    np.testing.assert_array_equal(found, evaluate(module, x))


def test_a_stage_ends_where_rows_are_missing() -> None:
    """Breaks: a 3x3 layer reads rows of words that its own stage has yet to compute."""
    network = staged(lambda emit, x: residual(emit, residual(emit, x, POINTWISE, 1), SQUARE, 2))
    assert len(network.stages) == 2
    first, second = only_stage(network, 0), only_stage(network, 1)
    assert operators(first.module).count("bnn.sign_pack") == 2 and operators(second.module)[0] == "bnn.packed_conv2d"
    # The words are read whole by the layer, the residual by its rows.
    assert sorted(second.reads, key=str) == sorted([Rows.WHOLE, Rows.SHARE], key=str)


def test_what_stays_within_a_stage_is_not_stored() -> None:
    """Breaks: every elementwise result is written to memory as a whole, which is what stages are there to avoid."""
    network = staged(two_layers)
    stage = only_stage(network, 1)
    assert operators(network.main) == ["relax.call_dps_packed"] * 2
    assert len(operators(stage.module)) >= 6 and isinstance(stage.module["main"].ret_ty, relax.TensorType)


def test_a_pooled_shortcut_is_stored_small() -> None:
    """Breaks: an image is stored at full size although only its average pool is read later."""
    first = only_stage(staged(pooled_shortcut), 1)
    shapes = [tuple(int(n) for n in ty.shape.values) for ty in first.module["main"].ret_ty.fields]
    assert sorted(shape[3] for shape in shapes) == [1, 32]  # words of the image, floats of the pool
    pool = next(shape for shape in shapes if shape[3] == 32)
    assert pool[1] * first.blocks_per_image == 4 and pool[2] == 2


def test_three_valued_words_are_packed_within_a_stage() -> None:
    """Breaks: an image is stored as floats, and read again, only to be packed between two stages."""
    network = staged(three_valued)
    assert set(operators(network.main)) == {"relax.call_dps_packed"}
    stage = only_stage(network, 0)
    words = [ty for ty in stage.module["main"].ret_ty.fields if str(ty.dtype) == "uint32"]
    assert "bnn.ternary_pack" in operators(stage.module) and len(words) == 1
    assert [int(n) for n in words[0].shape.values] == [1, 8 // stage.blocks, 2, 4, 1]


def test_a_late_sum_is_computed_where_it_is_needed() -> None:
    """Breaks: x and x + constant are both stored."""
    network = staged(tall_and_wide)
    stages = [operators(stage.module) for stage in network.stages.values()]
    assert stages[-1].count("relax.add") == 3 and "bnn.packed_conv2d" in stages[-1]
    first = only_stage(network, 0).module["main"].ret_ty
    assert len(first.fields) == 3  # words of the tall layer, the wide layer, x


def test_images_of_one_row_have_no_stages() -> None:
    """Breaks: dense layers, whose images are single pixels, are cut into blocks that do not exist."""
    network = staged(lambda emit, x: residual(emit, x, POINTWISE, 1), (4, 1, 1, 32))
    assert network.stages == {} and "bnn.packed_conv2d" in operators(network.main)


def test_epilogues_stay_with_float_convolutions() -> None:
    """Breaks: the bias of a stem is added in a pass over memory of its own."""
    weight = constant(np.ones((3, 3, 32, 32)))

    def stem(emit: Callable, x: relax.Expr) -> relax.Expr:
        y = emit(relax.op.nn.conv2d(x, weight, padding=1, data_layout="NHWC", kernel_layout="HWIO"))
        z = emit(relax.op.nn.relu(emit(relax.op.add(y, constant(np.ones(32))))))
        return residual(emit, z, POINTWISE, 1)

    network = staged(stem)
    assert operators(network.main)[:3] == ["relax.nn.conv2d", "relax.add", "relax.nn.relu"]


@settings(max_examples=25, deadline=None)
@given(
    rows=st.integers(2, 12),
    size=st.integers(1, 4),
    step=st.integers(1, 4),
    padding=st.integers(0, 1),
)
def test_only_pools_side_by_side_are_row_local(rows: int, size: int, step: int, padding: int) -> None:
    """Breaks: a pooling window that reaches over the edge of a block reads what is not there."""
    padding = min(padding, size // 2)
    module = build(
        [(1, rows + size, 4 + size, 8)],
        lambda emit, x: relax.op.nn.max_pool2d(x, (size, size), (step, step), padding, layout="NHWC"),
    )
    value = module["main"].body.blocks[0].bindings[0].value
    alone = size == step and padding == 0 and (rows + size) % step == 0
    assert (row_reads(value) is not None) == alone


@pytest.mark.parametrize("axis, alone", [(0, False), (1, False), (2, True), (3, True)])
def test_slices_of_images_and_rows_are_not_row_local(axis: int, alone: bool) -> None:
    """Breaks: a stage that drops an image, or rows, takes its blocks from the wrong ones."""
    module = build([(4, 4, 4, 4)], lambda emit, x: relax.op.strided_slice(x, [axis], [1], [3], [1]))
    assert (row_reads(module["main"].body.blocks[0].bindings[0].value) is not None) == alone


@pytest.mark.parametrize(
    "axis, alone",
    [(None, False), ([1], False), ([1, 2], False), ([-3], False), ([2], True), ([-1], True), ([2, 3], True)],
)
def test_means_over_rows_are_not_row_local(axis: list[int] | None, alone: bool) -> None:
    """Breaks: a mean over the rows of an image becomes one of a block of them, or one within each row ends a stage."""
    module = build([(1, 4, 4, 4)], lambda emit, x: relax.op.mean(x, axis=axis, keepdims=True))
    assert (row_reads(module["main"].body.blocks[0].bindings[0].value) is not None) == alone


def test_dump_shows_every_stage() -> None:
    """Breaks: --dump-ir hides what runs inside the stages."""
    text = staged(two_layers).script()
    assert text.count("def main") == 3 and "# stage_1: " in text
