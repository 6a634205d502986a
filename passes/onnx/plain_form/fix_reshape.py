"""Give a Reshape whose target is computed from shapes a constant target, with -1 for the one extent that is dynamic.

Before::

    n = Gather(Shape(x), 0);  y = Reshape(x, Concat(n, -1))        (N, 512, 1, 1) to (N, 512)
After::

    y = Reshape(x, [-1, 512])

PyTorch's ``x.view(x.size(0), -1)`` becomes the former, in QONNX files too.
Where: after shape inference.
Not handled: results with two dynamic extents, or an empty one.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from bnn_deploy.passes.onnx.graph import constant_of, is_standard, new_constant


def fix_reshape(graph: ir.Graph, node: ir.Node) -> None:
    """Change ``node`` in place if it is such a Reshape."""
    if not is_standard(node, "Reshape") or constant_of(node.inputs[1]) is not None:
        return
    shape = node.outputs[0].shape
    sizes = [] if shape is None else [size if isinstance(size, int) else -1 for size in shape]
    if shape is None or sizes.count(-1) > 1 or 0 in sizes:
        return
    node.replace_input_with(1, new_constant(graph, f"{node.outputs[0].name}_shape", np.asarray(sizes, np.int64)))
