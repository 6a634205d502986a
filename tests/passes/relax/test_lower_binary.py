"""lower_binary: packed operators become calls of the target's kernels that compute the same."""

from __future__ import annotations

import numpy as np
import pytest
import tvm
from tvm import relax

from bnn_deploy.errors import CompileError
from bnn_deploy.passes.relax.expressions import main_bindings, operator_name
from bnn_deploy.passes.relax.lower_binary import lower_binary
from bnn_deploy.passes.relax.pack import pack
from bnn_deploy.passes.relax.to_channels_last import to_channels_last
from bnn_deploy.targets.registry import get_target, host_target
from tests.passes.evaluate import evaluate
from tests.passes.execute import run_module
from tests.passes.networks import build, constant, convolution, geometry, linear, sign, take, ternary

HOST = host_target()


def lowered(module: tvm.IRModule) -> tvm.IRModule:
    return lower_binary(pack(to_channels_last(module)), HOST)


def kernel_calls(module: tvm.IRModule) -> list[relax.Call]:
    values = [binding.value for binding in main_bindings(module["main"])]
    return [value for value in values if operator_name(value) == "relax.call_tir"]


def networks() -> dict[str, tvm.IRModule]:
    numbers = np.random.default_rng(0).integers(-4, 5, (8, 200)) / 4
    shape = (2, 33, 5, 4)

    def conv(signs: object, attributes: object, outputs: int = 7, name: str = "bnn.conv2d") -> object:
        taps = attributes.kernel_shape[0] * attributes.kernel_shape[1]
        scale = np.resize(numbers, (outputs, taps)) if "tap" in name else np.resize(numbers, outputs)
        return lambda emit, x: convolution(
            emit(signs(x)), outputs, attributes, scale, np.resize(numbers, outputs), name
        )

    threshold = constant(np.linspace(-1, 1, 33).reshape(1, 33, 1, 1).round(1))
    same = geometry(33, (3, 3), pads=(1, 1, 1, 1))
    return {
        "conv": build([shape], conv(sign, same)),
        "strided, uneven padding": build([shape], conv(sign, geometry(33, (2, 3), (2, 1), (0, 2, 1, 0)))),
        "threshold, zero is +1": build([shape], conv(lambda x: sign(x, threshold, 1), same)),
        "zero is 0": build([shape], conv(lambda x: sign(x, 0.0, 0), same)),
        "threshold, zero is 0": build([shape], conv(lambda x: sign(x, threshold, 0), same)),
        "zero is 0, linear of tokens": build([(2, 3, 40)], lambda emit, x: linear(emit(sign(x, 0.5, 0)), 40, 6)),
        "zero is 0, linear": build([(3, 40)], lambda emit, x: linear(emit(sign(x, 0.0, 0)), 40, 6)),
        "zero is 0, linear of five axes": build(
            [(2, 3, 2, 2, 40)], lambda emit, x: linear(emit(sign(x, 0.0, 0)), 40, 6)
        ),
        "zero is 0, threshold per image": build(
            [(2, 33, 5, 4), (2, 33, 1, 1)], lambda emit, x, t: convolution(emit(sign(x, t, 0)), 7, geometry(33))
        ),
        "float signs, zero is 0": build([shape], lambda emit, x: emit(sign(x, threshold, 0))),
        "ternary": build([shape], conv(ternary, same)),
        "tap scales": build([shape], conv(sign, geometry(33, (1, 3), pads=(0, 1, 0, 1)), name="bnn.tap_scaled_conv2d")),
        "ternary tap scales": build([shape], conv(ternary, same, name="bnn.tap_scaled_conv2d")),
        "depthwise": build([shape], conv(sign, geometry(33, (3, 3), pads=(1, 1, 1, 1), group=33), outputs=33)),
        "groups": build([(1, 24, 4, 4)], conv(sign, geometry(24, (1, 1), group=3), outputs=6)),
        "linear": build([(3, 40)], lambda emit, x: linear(emit(sign(x)), 40, 6, numbers[0, :6], numbers[1, :6])),
        "ternary linear of tokens": build([(2, 3, 40)], lambda emit, x: linear(emit(ternary(x)), 40, 6)),
        "ternary linear of images": build([(2, 3, 4, 40)], lambda emit, x: linear(emit(ternary(x)), 40, 6)),
        "ternary linear of five axes": build([(2, 3, 2, 2, 40)], lambda emit, x: linear(emit(ternary(x)), 40, 6)),
        "threshold per image": build(
            [(2, 33, 5, 4), (2, 33, 1, 1)], lambda emit, x, t: convolution(emit(sign(x, t)), 7, geometry(33))
        ),
        "float signs": build([shape], lambda emit, x: relax.op.add(emit(sign(x, threshold, 1)), emit(ternary(x)))),
    }


@pytest.mark.parametrize("name", networks())
def test_kernels_compute_what_the_operators_mean(name: str) -> None:
    """Breaks: a kernel gets the wrong shape, weights, scales, planes or threshold."""
    module = networks()[name]
    random = np.random.default_rng(1)
    shapes = [[int(extent) for extent in parameter.ty.shape.values] for parameter in module["main"].params]
    # Halves and quarters: all sums are exact, so both agree bit for bit.
    inputs = [random.integers(-4, 5, shape).astype("float32") / 4 for shape in shapes]
    inputs[0].flat[:4] = [0.0, -0.0, np.nan, 0.5]
    if name.endswith("threshold per image"):
        inputs[0].flat[4:10] = inputs[1].flat[0]
    with np.errstate(invalid="ignore"):
        expected = evaluate(module, *inputs)
    np.testing.assert_array_equal(run_module(lowered(module), HOST, *inputs), expected)


def test_calls_carry_layer_kind_and_work() -> None:
    """Breaks: profile cannot say which layer a kernel computes, or how many binary operations it does."""

    def body(emit: object, x: relax.Var) -> relax.Expr:
        signs = emit(sign(x), "sign")
        return emit(convolution(signs, 8, geometry(32, (3, 3), pads=(1, 1, 1, 1))), "conv")

    module = build([(1, 32, 4, 5)], body, {"sign": "block.0.sign", "conv": "block.0.binary_3x3"})
    found = [
        (str(c.attrs["layer"]), str(c.attrs["kind"]), int(c.attrs["binary_macs"]))
        for c in kernel_calls(lowered(module))
    ]
    # 4 * 5 pixels * 8 outputs * 9 taps * 32 channels, padded taps included as in the papers.
    assert found == [("block.0.sign", "pack", 0), ("block.0.binary_3x3", "binary", 4 * 5 * 8 * 9 * 32)]


def test_equal_layers_share_a_kernel() -> None:
    """Breaks: a network of 50 equal blocks compiles 50 copies of each kernel."""

    def body(emit: object, x: relax.Var) -> relax.Expr:
        for seed in range(3):
            x = emit(convolution(emit(sign(x)), 32, geometry(32), seed=seed))
        return x

    module = lowered(build([(1, 32, 4, 4)], body))
    calls = kernel_calls(module)
    assert len(calls) == 6 and len({call.args[0].name_hint for call in calls}) == 2
    weights = [call.args[1].fields[1].value.numpy() for call in calls[1::2]]
    assert not np.array_equal(weights[0], weights[1])


def test_different_shapes_are_different_kernels() -> None:
    """Breaks: a kernel made for one image size runs on another."""

    def body(emit: object, x: relax.Var) -> relax.Expr:
        y = emit(convolution(emit(sign(x)), 32, geometry(32, strides=(2, 2))))
        return convolution(emit(sign(y)), 32, geometry(32, strides=(2, 2)))

    calls = kernel_calls(lowered(build([(1, 32, 8, 8)], body)))
    assert len({call.args[0].name_hint for call in calls}) == 4


@pytest.mark.parametrize("target", ["x86-64-v3", "arm64"])
def test_every_call_names_a_function_of_the_module(target: str) -> None:
    """Breaks: the pass selects kernels for another target than asked, or forgets to add one."""
    module = lower_binary(pack(to_channels_last(networks()["ternary"])), get_target(target))
    functions = {variable.name_hint for variable in module.get_global_vars()}
    names = [call.args[0].name_hint for call in kernel_calls(module)]
    assert set(names) <= functions
    assert any(("x86_64" if target.startswith("x86") else "arm64") in name for name in names), names


def test_threshold_over_space_is_refused_by_name() -> None:
    """Breaks: a kernel compares every pixel with the first pixel's threshold."""
    threshold = constant(np.ones((1, 1, 4, 4)))
    body = lambda emit, x: convolution(emit(sign(x, threshold), "sign"), 2, geometry(32))  # noqa: E731
    module = build([(1, 32, 4, 4)], body, {"sign": "block.sign"})
    with pytest.raises(CompileError, match=r"Layer 'block.sign' compares with a threshold .*varies over space"):
        lowered(module)


def test_computed_scale_is_refused_by_name() -> None:
    """Breaks: a scale that is no constant crashes the compiler without naming the layer."""
    attributes = geometry(32, channels_last=1)

    def body(emit: object, x: relax.Var, scale: relax.Var) -> relax.Expr:
        call = convolution(emit(sign(x)), 2, attributes)
        return emit(relax.Call(call.op, [call.args[0], call.args[1], scale, call.args[3]], call.attrs), "conv")

    module = build([(1, 4, 4, 32), (2,)], body, {"conv": "block.conv"})
    with pytest.raises(CompileError, match=r"Layer 'block.conv' computes its packed weights or scale at run time"):
        lower_binary(pack(module), HOST)


def test_moved_words_reach_the_kernel() -> None:
    """Breaks: a slice of words gets a kernel for the unsliced channels."""
    module = build([(1, 64, 4, 4)], lambda emit, x: convolution(emit(take(emit(sign(x)), 1, 32, 64)), 3, geometry(32)))
    x = np.random.default_rng(0).normal(size=(1, 64, 4, 4)).astype("float32")
    np.testing.assert_array_equal(run_module(lowered(module), HOST, x), evaluate(module, x))
