"""fuse_float: float work becomes few TIR kernels with layer names; binary kernels and reshapes stay apart."""

from __future__ import annotations

import numpy as np
import tvm
from tvm import relax

from bnn_deploy.passes.relax.expressions import main_bindings, operator_name
from bnn_deploy.passes.relax.fuse_float import fuse_float
from bnn_deploy.passes.relax.lower_binary import lower_binary
from bnn_deploy.passes.relax.pack import pack
from bnn_deploy.passes.relax.to_channels_last import to_channels_last
from bnn_deploy.targets.registry import host_target
from tests.passes.evaluate import evaluate
from tests.passes.execute import run_module
from tests.passes.networks import build, constant, convolution, geometry, per_channel, sign

HOST = host_target()
NAMES = {name: f"block.{name}" for name in ("sign", "conv", "add", "prelu", "mul")}


def block(emit: object, x: relax.Var) -> relax.Expr:
    """A binary layer with shortcut and activation."""
    y = emit(convolution(emit(sign(x), "sign"), 8, geometry(8, (3, 3), pads=(1, 1, 1, 1))), "conv")
    y = emit(relax.op.add(y, x), "add")
    y = emit(relax.op.nn.prelu(y, constant(np.arange(8) / 4), axis=1), "prelu")
    return emit(relax.op.multiply(y, per_channel(np.arange(8) / 2)), "mul")


def fused(module: tvm.IRModule) -> tvm.IRModule:
    return fuse_float(lower_binary(pack(to_channels_last(module)), HOST))


def calls(module: tvm.IRModule) -> list[tuple[str, relax.Call]]:
    values = [binding.value for binding in main_bindings(module["main"])]
    return [(value.args[0].name_hint, value) for value in values if operator_name(value) == "relax.call_tir"]


def test_main_becomes_kernel_calls_only() -> None:
    """Breaks: something is left that the memory plan cannot place."""
    module = fused(build([(1, 8, 4, 4)], block, NAMES))
    names = {operator_name(binding.value) for binding in main_bindings(module["main"])}
    assert names == {"relax.call_tir"}


def test_elementwise_work_after_a_layer_is_one_kernel() -> None:
    """Breaks: shortcut, activation and scale are three passes over the image."""
    module = fused(build([(1, 8, 4, 4)], block, NAMES))
    layers = module.attrs["kernel_layers"]
    joined = [str(layers[name]) for name, value in calls(module) if value.attrs is None]
    assert "block.add + block.prelu + block.mul" in joined, joined
    assert len(joined) == 1


def test_binary_kernels_keep_their_attributes() -> None:
    """Breaks: fusion swallows a scheduled kernel, or its layer name and operation count."""
    module = fused(build([(1, 8, 4, 4)], block, NAMES))
    found = {(str(c.attrs["layer"]), str(c.attrs["kind"])) for _, c in calls(module) if c.attrs is not None}
    assert {("block.sign", "pack"), ("block.conv", "binary")} <= found


def test_single_float_operators_carry_their_layer() -> None:
    """Breaks: an operator that is fused with nothing has no name in profiles, or counts as binary work."""
    module = build([(1, 8, 4, 4)], lambda emit, x: emit(relax.op.nn.softmax(x, axis=1), "sm"), {"sm": "head.softmax"})
    ((_, call),) = calls(fuse_float(module))
    assert (str(call.attrs["layer"]), str(call.attrs["kind"])) == ("head.softmax", "float")
    assert int(call.attrs["binary_macs"]) == 0


def test_reshapes_stay_reshapes() -> None:
    """Breaks: a reshape becomes a copy of its bytes."""
    module = build(
        [(1, 8, 4, 4)], lambda emit, x: relax.op.abs(emit(relax.op.reshape(emit(relax.op.abs(x)), (1, 128))))
    )
    names = [operator_name(binding.value) for binding in main_bindings(fuse_float(module)["main"])]
    assert names == ["relax.call_tir", "relax.reshape", "relax.call_tir"]


def test_layer_names_of_the_module_survive() -> None:
    """Breaks: TVM's passes drop the module's attributes."""
    module = fused(build([(1, 8, 4, 4)], block, NAMES))
    assert {str(k): str(v) for k, v in module.attrs["layer_names"].items()} == NAMES


def test_function_is_kept() -> None:
    """Breaks: fusion changes what is computed."""
    module = build([(1, 8, 4, 4)], block, NAMES)
    # Whole numbers and quarters: exact in float32 in any order.
    x = np.random.default_rng(0).integers(-4, 5, (1, 8, 4, 4)).astype("float32")
    np.testing.assert_array_equal(run_module(fused(module), HOST, x), evaluate(module, x))
