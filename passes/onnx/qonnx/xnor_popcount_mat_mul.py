"""XnorPopcountMatMul: how often the bits of a row and of a column agree.

Before::

    y = qonnx::XnorPopcountMatMul(a, b)      a: (..., K) and b: (K, N) of 0 and 1
After::

    y = Add(Mul(MatMul(Sub(Mul(a, 2), 1), Sub(Mul(b, 2), 1)), 0.5), K / 2)

A product of +1 and -1 counts agreements less disagreements, which together are K. All values are halves of integers below
2^24 and so exact.
Not handled: a K that the file does not tell.
"""

from __future__ import annotations

import numpy as np

from bnn_deploy.passes.onnx.qonnx.replacement import Replacement


def expand_xnor_popcount_mat_mul(write: Replacement) -> str:
    """Write the standard nodes of one XnorPopcountMatMul node.

    Returns:
        The value that takes the place of the node's output.

    Raises:
        ModelFileError: inputs or types are wrong, or K is unknown; names the node.
    """
    left, right = write.inputs(2)
    kind = write.float_type(left, right)
    shape = write.scope.shapes.get(right)
    depth = shape[-2] if shape is not None and len(shape) >= 2 else None
    if depth is None:
        raise write.refusal(f"has a second input {right!r} whose number of rows the file does not give")
    two, one, half, offset = (
        write.new_constant(np.asarray(number), name, kind)
        for name, number in (("two", 2.0), ("one", 1.0), ("half", 0.5), ("offset", depth / 2))
    )
    signs = [write.add("Sub", write.add("Mul", bits, two), one) for bits in (left, right)]
    return write.add("Add", write.add("Mul", write.add("MatMul", *signs, named=True), half), offset)
