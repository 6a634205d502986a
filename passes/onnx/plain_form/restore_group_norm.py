"""Say GroupNormalization where an exporter took it apart.

Before::

    i = InstanceNormalization(Reshape(x, [0, G, -1]), ones, zeros);  y = Add(Mul(Reshape(i, shape of x), gamma), beta)
After::

    y = GroupNormalization(x, gamma, beta, num_groups=G)

torch.onnx.export writes GroupNorm so for operator sets before 21. As one operator the compiler computes it channels last, and
with means that keep float32's accuracy (``decompose_group_norm``); as three on another shape it could do neither.
Where: after constants are folded and shapes inferred.
Not handled: another scale or bias in the InstanceNormalization than ones and zeros, factors that are not one per channel.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from bnn_deploy.passes.onnx.graph import (
    constant_of,
    is_standard,
    new_constant,
    producer_of,
    replace_value,
    required_input,
    static_shape,
)
from bnn_deploy.passes.onnx.node_writer import NodeWriter


def restore_group_norm(graph: ir.Graph) -> None:
    """Change ``graph`` in place; nodes that nobody reads any more are left for the next clean-up."""
    for node in list(graph):
        if is_standard(node, "InstanceNormalization"):
            _restore(graph, node)


def _restore(graph: ir.Graph, instance: ir.Node) -> None:
    before = producer_of(instance.inputs[0])
    after = _only_reader(instance, "Reshape")
    product = None if after is None else _only_reader(after, "Mul")
    total = None if product is None else _only_reader(product, "Add")
    if after is None or product is None or total is None or not is_standard(before, "Reshape"):
        return
    x = required_input(before)
    shape, groups, result = (static_shape(value) for value in (x, instance.inputs[0], after.outputs[0]))
    if shape is None or groups is None or result is None or len(shape) != 4 or len(groups) != 3:
        return
    channels, count = shape[1], groups[1]
    # All but the batch known and equal: then the batch is too, since no element is gained or lost.
    if channels is None or count is None or None in shape[1:] or result[1:] != shape[1:] or channels % count:
        return
    if not _all_equal(instance.inputs[1], 1.0) or not _all_equal(instance.inputs[2], 0.0):
        return
    gamma, beta = _per_channel(product, after, channels), _per_channel(total, product, channels)
    if gamma is None or beta is None:
        return
    name = str(total.outputs[0].name)
    vectors = [new_constant(graph, f"{name}.{kind}", array) for kind, array in (("gamma", gamma), ("beta", beta))]
    epsilon = instance.attributes.get_float("epsilon", 1e-5)
    attributes = {"num_groups": count, "epsilon": epsilon}
    writer = NodeWriter(graph, instance)
    norm = writer.write("GroupNormalization", [x, *vectors], attributes, x.shape, name=instance.name)
    replace_value(total.outputs[0], norm)


def _only_reader(node: ir.Node, operator: str) -> ir.Node | None:
    """The one node that reads ``node``'s result, if it is this operator."""
    output = node.outputs[0]
    readers = {reader for reader, _ in output.uses()}
    reader = next(iter(readers)) if len(readers) == 1 and not output.is_graph_output() else None
    return reader if is_standard(reader, operator) else None


def _all_equal(value: ir.Value | None, number: float) -> bool:
    array = constant_of(value)
    return array is not None and bool((array == number).all())


def _per_channel(node: ir.Node, computed: ir.Node, channels: int) -> np.ndarray | None:
    """The other operand of ``node``, if it is one constant for each channel of an image: (C,)."""
    others = [value for value in node.inputs if value is not computed.outputs[0]]
    array = constant_of(others[0]) if len(others) == 1 else None
    if array is None or array.shape not in ((channels, 1, 1), (1, channels, 1, 1)):
        return None
    return np.ascontiguousarray(array.reshape(-1))
