"""The binarisations of the graph that the compiler sees, and what lies between each and those before it."""

from __future__ import annotations

from onnx import ModelProto, NodeProto

from bnn_deploy.ops.registry import is_activation
from bnn_deploy.references.layer_values import SignPlace


def sign_nodes(model: ModelProto) -> list[NodeProto]:
    """The Sign and Ternary nodes in the order of the graph; their first output is the ``tensor`` of a sign."""
    return [node for node in model.graph.node if is_activation(node)]


def sign_places(model: ModelProto) -> list[SignPlace]:
    """The place of every binarisation that is computed, in the order of the graph."""
    producers = {output: node for node in model.graph.node for output in node.output if output}
    order = {id(node): index for index, node in enumerate(model.graph.node)}
    return [
        SignPlace(
            node.name or node.output[0],
            node.output[0],
            tuple(
                each.name or each.output[0]
                for each in sorted(_between(node, producers), key=lambda each: order[id(each)])
            ),
            node.op_type == "Ternary" or any(entry.name == "zero" and entry.i == 0 for entry in node.attribute),
        )
        for node in sign_nodes(model)
    ]


def _between(sign: NodeProto, producers: dict[str, NodeProto]) -> list[NodeProto]:
    """The nodes on which ``sign`` depends, without what other signs depend on."""
    found: dict[int, NodeProto] = {}
    pending = list(sign.input)
    while pending:
        node = producers.get(pending.pop())
        if node is None or is_activation(node) or id(node) in found:
            continue
        found[id(node)] = node
        pending.extend(node.input)
    return list(found.values())
