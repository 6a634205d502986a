"""The step that several operators of QONNX share: one of two numbers, by a threshold."""

from __future__ import annotations

import numpy as np

from bnn_deploy.passes.onnx.qonnx.replacement import Replacement


def two_valued(write: Replacement, value: str, threshold: np.ndarray, low: float, high: float, kind: int) -> str:
    """Write ``high`` where ``value >= threshold``, else ``low`` (for NaN too).

    Args:
        write: receives the nodes; the Where bears the QONNX node's name.
        value: name of a value of element type ``kind``.
        threshold: broadcasts to ``value``.
        low, high: finite.
        kind: floating-point element type.
    """
    at_least = write.add("GreaterOrEqual", value, write.new_constant(threshold, "threshold", kind))
    numbers = [write.new_constant(np.asarray(number), name, kind) for name, number in (("high", high), ("low", low))]
    return write.add("Where", at_least, *numbers, named=True)
