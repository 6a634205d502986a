"""Write an Einsum of two tensors that sums over one index as a matrix product, which may be a binary layer.

Before::

    y = Einsum("btc,cd->btd", x, w);  a = Einsum("bqhd,bkhd->bhqk", q, k)
After::

    y = MatMul(x, w);  a = MatMul(Transpose(q, [0, 2, 1, 3]), Transpose(k, [0, 2, 3, 1]))

Where: before constants are folded, so that transposed weights are constants again.
Not handled: one or three operands, an index that occurs twice in a term, or in one term only and not in the result, sums over
several indices or none, and two free indices on either side of a batched product.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from bnn_deploy.passes.onnx.graph import constant_of, is_standard, new_constant, replace_value, required_input
from bnn_deploy.passes.onnx.node_writer import NodeWriter

_ELLIPSIS = "..."
_SPARE = "ZYXWVUTSRQPONMLKJIHGFEDCBA"


def expand_einsum(graph: ir.Graph, node: ir.Node) -> None:
    """Replace ``node`` if it is such an Einsum."""
    if not is_standard(node, "Einsum") or len(node.inputs) != 2 or None in node.inputs:
        return
    terms = _terms(node)
    if terms is None or any(len(set(term)) != len(term) for term in terms):
        return
    *operands, result = terms
    # Weights are the right factor, as in a linear layer.
    order = (1, 0) if constant_of(node.inputs[0]) is not None else (0, 1)
    for first, second in (order, order[::-1]):
        if _expanded(graph, node, first, second, operands, result):
            return


def _terms(node: ir.Node) -> list[str] | None:
    """The two operands' indices and the result's, one letter each, an ellipsis spelt out."""
    equation = node.attributes.get_string("equation", "").replace(" ", "")
    left, arrow, result = equation.partition("->")
    terms = left.split(",")
    if len(terms) != 2:
        return None
    if not arrow:
        letters = sorted(set(left) - {",", "."})
        result = (_ELLIPSIS if _ELLIPSIS in left else "") + "".join(x for x in letters if left.count(x) == 1)
    widths = []
    for term, value in zip(terms, node.inputs, strict=True):
        if _ELLIPSIS in term:
            if value is None or value.shape is None:
                return None
            widths.append(len(value.shape) - len(term) + len(_ELLIPSIS))
    if widths and min(widths) != max(widths):
        return None
    spare = [letter for letter in _SPARE if letter not in equation][: widths[0] if widths else 0]
    if any(width < 0 or width > len(spare) for width in widths):
        return None
    terms = [term.replace(_ELLIPSIS, "".join(spare)) for term in (*terms, result)]
    return terms if all(letter.isalpha() for term in terms for letter in term) else None


def _expanded(graph: ir.Graph, node: ir.Node, first: int, second: int, operands: list[str], result: str) -> bool:
    left, right = operands[first], operands[second]
    batch = [x for x in left if x in right and x in result]
    summed = [x for x in left if x in right and x not in result]
    rows, columns = [x for x in left if x not in right], [x for x in right if x not in left]
    if len(summed) != 1 or len(columns) > 1 or (batch and len(rows) > 1) or not set(rows + columns) <= set(result):
        return False
    if set(result) != {*batch, *rows, *columns}:
        return False
    writer = NodeWriter(graph, node)
    a = _ordered(writer, required_input(node, first), left, [*batch, *rows, *summed])
    b = _ordered(writer, required_input(node, second), right, [*batch, *summed, *columns])
    # A vector is a matrix of one row, or of one column.
    if not rows:
        a = writer.write("Unsqueeze", [a, _axis(writer, -2)])
    if not columns:
        b = writer.write("Unsqueeze", [b, _axis(writer, -1)])
    y = writer.write("MatMul", [a, b], name=node.name)
    if not rows:
        y = writer.write("Squeeze", [y, _axis(writer, -2)])
    if not columns:
        y = writer.write("Squeeze", [y, _axis(writer, -1)])
    replace_value(node.outputs[0], _ordered(writer, y, "".join([*batch, *rows, *columns]), list(result)))
    graph.remove(node, safe=True)
    return True


def _ordered(writer: NodeWriter, value: ir.Value, term: str, wanted: list[str]) -> ir.Value:
    """``value``, whose axes are ``term``, with its axes in another order."""
    order = [term.index(letter) for letter in wanted]
    return value if order == sorted(order) else writer.write("Transpose", [value], {"perm": order})


def _axis(writer: NodeWriter, axis: int) -> ir.Value:
    return new_constant(writer.graph, f"{writer.old.outputs[0].name}_axis", np.asarray([axis], np.int64))
