"""BipolarQuant: two values, whose distance from zero is the scale.

Before::

    y = qonnx::BipolarQuant(x, scale)
After::

    y = Mul(Where(GreaterOrEqual(x, 0), 1, -1), scale)

-0.0 gives +scale and NaN gives -scale, as in QONNX. No Mul where the scale is 1.
Not handled: a scale of another type than x, values that are not floating point.
"""

from __future__ import annotations

import numpy as np

from bnn_deploy.passes.onnx.qonnx.replacement import Replacement
from bnn_deploy.passes.onnx.qonnx.two_valued import two_valued


def expand_bipolar_quant(write: Replacement) -> str:
    """Write the standard nodes of one BipolarQuant node.

    Returns:
        The value that takes the place of the node's output.

    Raises:
        ModelFileError: the number of inputs or a type is not BipolarQuant's; names the node.
    """
    value, scale = write.inputs(2)
    kind = write.float_type(value, scale)
    signs = two_valued(write, value, np.zeros(()), -1.0, 1.0, kind)
    # The signs have the value's shape, which is what decides whether a scale of ones may be left out.
    return signs if write.is_neutral(scale, 1.0, value) else write.add("Mul", signs, scale)
