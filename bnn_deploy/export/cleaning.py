"""Making the exporter's graph plain: constants computed, and nodes that do nothing taken out.

torch.onnx.export's own optimiser is not used, since it folds BatchNormalization into Conv and computes new parameters.
"""

from __future__ import annotations

from collections.abc import Set

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common
from onnxscript import optimizer

from bnn_deploy.export.batch_norm import compact_batch_norms
from bnn_deploy.passes.onnx.plain_form.drop_no_ops import skip_whole_slice
from bnn_deploy.passes.onnx.plain_form.fix_reshape import fix_reshape

_RESHAPING = {"Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"}


def clean(model: ir.Model, parameters: Set[str]) -> None:
    """Rewrite ``model`` in place.

    Args:
        model: as traced, not optimised.
        parameters: names of the module's parameters and buffers.
    """

    def should_fold(node: ir.Node) -> bool | None:
        reads_parameter = any(value is not None and value.name in parameters for value in node.inputs)
        # Arithmetic on parameters stays, so that the file holds the module's parameters and no others.
        return False if reads_parameter and node.op_type not in _RESHAPING else None

    common.InlinePass()(model)
    optimizer.fold_constants(model, should_fold=should_fold)
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    for node in list(model.graph):
        skip_whole_slice(node)
        fix_reshape(model.graph, node)
        _drop_zero_bias(node, parameters)
    compact_batch_norms(model.graph)
    for tidy in (
        common.IdentityEliminationPass(),
        common.RemoveUnusedNodesPass(),
        common.RemoveUnusedFunctionsPass(),  # type: ignore[no-untyped-call] # onnx_ir gives it no types
        common.RemoveUnusedOpsetsPass(),
    ):
        tidy(model)
    _share_constants(model.graph, parameters)


def _drop_zero_bias(node: ir.Node, parameters: Set[str]) -> None:
    """The exporter gives a Conv without a bias one of zeros, which the module does not have."""
    bias = node.inputs[2] if node.op_type == "Conv" and len(node.inputs) == 3 else None
    if bias is None or bias.name in parameters or bias.const_value is None:
        return
    if not np.any(bias.const_value.numpy()):
        node.resize_inputs(2)


def _share_constants(graph: ir.Graph, parameters: Set[str]) -> None:
    """Equal constants of the code (axes, slice bounds, the threshold 0) become one; parameters never do."""
    first: dict[tuple[ir.DataType, tuple[int, ...], bytes], ir.Value] = {}
    for name, value in list(graph.initializers.items()):
        tensor = value.const_value
        if name in parameters or tensor is None or value.is_graph_output():
            continue
        # A float vector may be a parameter under another name, such as a reshaped PReLU slope.
        if tensor.dtype != ir.DataType.INT64 and tensor.size > 1:
            continue
        kept = first.setdefault((tensor.dtype, tuple(tensor.shape.numpy()), tensor.tobytes()), value)
        if kept is not value:
            value.replace_all_uses_with(kept)
            del graph.initializers[name]
