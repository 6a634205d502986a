"""The activation itself, moved as a layer's input is, without the scales and offsets on the way.

Before::

    s = Sign(x);  u = Mul(s, 0.5);  r = Concat(u[1:], u[:1]);  y = layer(r)
After::

    r' = Concat(s[1:], s[:1]);  y = layer(r') and its scale halved

Only the data movement behind a scale is written anew; where there is none, the value itself is the answer. The old nodes
stay for their other readers and die if they have none.

Not handled: anything but data movement and ``SCALAR_ARITHMETIC``; ask ``BinaryFacts`` first.
"""

from __future__ import annotations

import onnx_ir as ir

from bnn_deploy.passes.onnx.graph import is_binary_activation, layer_name, moved_inputs, required_input
from bnn_deploy.passes.onnx.layers.binary_values import scalar_operand


class Unscaler:
    """Remembers what it wrote, so that layers that share an input go on sharing it."""

    def __init__(self) -> None:
        self._plain: dict[ir.Value, ir.Value] = {}

    def __call__(self, value: ir.Value) -> ir.Value:
        """The -1/0/+1 tensor of the shape of ``value``, a value for which ``BinaryFacts`` knows BinaryValues."""
        pending = [value]
        while pending:
            current = pending[-1]
            missing = [source for source in _sources(current) if source not in self._plain]
            pending.extend(missing)
            if not missing:
                pending.pop()
                self._finish(current)
        return self._plain[value]

    def _finish(self, value: ir.Value) -> None:
        if value in self._plain:
            return
        sources, node = _sources(value), value.producer()
        if scalar_operand(node) is not None:
            self._plain[value] = self._plain[sources[0]]
        elif node is None or all(self._plain[source] is source for source in sources):
            # The activation itself, or data movement of nothing else.
            self._plain[value] = value
        else:
            self._copy(node, sources)

    def _copy(self, node: ir.Node, sources: list[ir.Value]) -> None:
        """Write data movement again, on the plain sources."""
        inputs = [self._plain[value] if value in sources else value for value in node.inputs]
        outputs = [
            ir.Value(name=f"{output.name}/unscaled", shape=output.shape, type=output.type) for output in node.outputs
        ]
        copy = ir.Node(
            node.domain,
            node.op_type,
            inputs,
            node.attributes.values(),
            outputs=outputs,
            name=f"{layer_name(node)}/unscaled",
            metadata_props=dict(node.metadata_props),
        )
        node.append(copy)
        self._plain.update(zip(node.outputs, outputs, strict=True))


def _sources(value: ir.Value) -> list[ir.Value]:
    """The values that hold what ``value`` does, but for scale and offset; none for the activation."""
    node = value.producer()
    if node is None or is_binary_activation(node):
        return []
    operand = scalar_operand(node)
    return moved_inputs(node) if operand is None else [required_input(node, operand)]
