"""Take a Gemm or MatMul apart, the weights on either side.

Before::

    MatMul(w (O, K), x (K, N))                              Gemm(x (M, K), w (O, K), c (O,)) {transB: 1, alpha: 0.5}
After::

    LayerForm(x, weights (O, 1, K), transposes both)        LayerForm(x, weights (O, 1, K), factor 0.5, bias c)

Not handled, and said: two computed operands, stacks of matrices, vectors as weights.
"""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from bnn_deploy.passes.onnx.graph import constant_of, static_shape
from bnn_deploy.passes.onnx.layers.layer_form import LayerForm, check_extent, computed_by


def read_product(node: ir.Node) -> LayerForm:
    """The form of a standard Gemm or MatMul; its ``reasons`` say what a binary layer cannot do."""
    form = LayerForm(node)
    left, right = constant_of(node.inputs[0]), constant_of(node.inputs[1])
    if (left is None) == (right is None):
        form.reasons.append(_operands(node, left is not None))
        form.activation = None if left is not None else node.inputs[0]
        return form
    weights, on_the_left = (right, False) if left is None else (left, True)
    form.activation = node.inputs[1 if on_the_left else 0]
    form.rank = 2 if node.op_type == "Gemm" else len(static_shape(form.activation) or ())
    transposed = [_flag(node, name) for name in ("transA", "transB")]
    if weights.ndim > 2 and all(extent == 1 for extent in weights.shape[:-2]) and form.rank >= weights.ndim:
        weights = weights.reshape(weights.shape[-2:])
    if weights.ndim != 2:
        kind = "a vector" if weights.ndim < 2 else f"a stack of matrices {weights.shape}"
        form.reasons.append(f"its weights are {kind}, not one matrix")
        rows = weights if on_the_left or weights.ndim < 2 else np.swapaxes(weights, -1, -2)
        form.weights = rows.reshape(math.prod(rows.shape[:-1]), 1, math.prod(rows.shape[-1:]))
        return form
    if on_the_left:
        # Y = W X is (Xᵀ Wᵀ)ᵀ: W as stored is (O, K), X (K, N).
        matrix = weights.T if transposed[0] else weights
        form.transpose_input, form.transpose_output = not transposed[1], True
    else:
        matrix = weights if transposed[1] else weights.T
        form.transpose_input = transposed[0]
    form.weights = matrix[:, None, :]
    if form.rank == 1:  # of MatMul only: a vector has no axes to swap
        form.transpose_input = form.transpose_output = False
    if form.transpose_input and form.rank == 0:
        form.reasons.append("the number of dimensions of its input is not known")
    check_extent(form, -2 if form.transpose_input else -1, matrix.shape[1])
    if node.op_type == "Gemm":
        _read_gemm(form, len(matrix))
    return form


def _read_gemm(form: LayerForm, outputs: int) -> None:
    node = form.node
    form.factor = node.attributes["alpha"].as_float() if "alpha" in node.attributes else 1.0
    beta = node.attributes["beta"].as_float() if "beta" in node.attributes else 1.0
    addend = node.inputs[2] if len(node.inputs) > 2 else None
    if addend is None or beta == 0:
        return
    constant = constant_of(addend)
    axis = 0 if form.transpose_output else 1
    if constant is not None and constant.ndim <= 2:
        aligned = constant.reshape((1,) * (2 - constant.ndim) + constant.shape)
        # One number for each output: (1, O) where outputs are columns, (O, 1) where they are rows, or one for all.
        if aligned.shape[1 - axis] == 1 and aligned.shape[axis] in (1, outputs):
            form.bias = np.broadcast_to(aligned.reshape(-1).astype(np.float64) * beta, (outputs,))
            return
    form.addend, form.addend_factor = addend, beta


def _operands(node: ir.Node, constant: bool) -> str:
    if constant:
        return "both of its operands are constants"
    first, second = (computed_by(value) for value in node.inputs[:2])
    return f"neither operand is a constant: they come from {first} and {second}"


def _flag(node: ir.Node, name: str) -> bool:
    return name in node.attributes and node.attributes[name].as_int() != 0
