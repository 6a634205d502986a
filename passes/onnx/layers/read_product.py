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

from bnn_deploy.passes.onnx.graph import constant_of, optional_input, required_input, static_shape
from bnn_deploy.passes.onnx.layers.layer_form import LayerForm, check_extent, computed_by


def read_product(node: ir.Node) -> LayerForm:
    """The form of a standard Gemm or MatMul; its ``reasons`` say what a binary layer cannot do."""
    left, right = constant_of(node.inputs[0]), constant_of(node.inputs[1])
    if right is not None and left is None:
        return _read(LayerForm(node, required_input(node, 0)), right, on_the_left=False)
    if left is not None and right is None:
        return _read(LayerForm(node, required_input(node, 1)), left, on_the_left=True)
    if left is not None:
        return LayerForm(node, reasons=["both of its operands are constants"])
    first, second = (computed_by(value) for value in node.inputs[:2])
    reason = f"neither operand is a constant: they come from {first} and {second}"
    return LayerForm(node, required_input(node), reasons=[reason])


def _read(form: LayerForm, weights: np.ndarray, on_the_left: bool) -> LayerForm:
    """``form``, filled in from the constant operand."""
    node = form.node
    form.rank = 2 if node.op_type == "Gemm" else len(static_shape(form.activation) or ())
    if weights.ndim > 2 and all(extent == 1 for extent in weights.shape[:-2]) and form.rank >= weights.ndim:
        weights = weights.reshape(weights.shape[-2:])
    if weights.ndim != 2:
        kind = "a vector" if weights.ndim < 2 else f"a stack of matrices {weights.shape}"
        form.reasons.append(f"its weights are {kind}, not one matrix")
        rows = weights if on_the_left or weights.ndim < 2 else np.swapaxes(weights, -1, -2)
        form.weights = rows.reshape(math.prod(rows.shape[:-1]), 1, math.prod(rows.shape[-1:]))
        return form
    trans_a, trans_b = (node.attributes.get_int(name, 0) != 0 for name in ("transA", "transB"))
    if on_the_left:
        # Y = W X is (Xᵀ Wᵀ)ᵀ: W as stored is (O, K), X (K, N).
        matrix = weights.T if trans_a else weights
        form.transpose_input, form.transpose_output = not trans_b, True
    else:
        matrix = weights if trans_b else weights.T
        form.transpose_input = trans_a
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
    form.factor, beta = (node.attributes.get_float(name, 1.0) for name in ("alpha", "beta"))
    addend = optional_input(node, 2)
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
