"""Quant, also called IntQuant: rounding to integers of a few bits, or to two values for one signed bit.

Before::

    y = qonnx::Quant(x, scale, zero_point, bits, signed=1, narrow=0, rounding_mode="ROUND")
After, for two bits or more::

    y = Mul(Sub(Round(Clip(Add(Div(x, scale), zero_point), low, high)), zero_point), scale)
After, for one signed bit::

    y = Mul(Sub(Where(GreaterOrEqual(Add(Div(x, scale), zero_point), 0), 1, -1), zero_point), scale)

low and high are the least and the greatest integer of that many bits, signed or not; ``narrow`` leaves one out (the least
if signed, else the greatest). The clipping comes before the rounding, as in QONNX. Scales of 1 and zero points of 0 leave
nothing behind, and one signed bit needs no division by a scale from 0 to 1, which never turns a negative number into zero.
Not handled: a bit width that is computed, differs between channels or is no whole number from 1 to 32.
"""

from __future__ import annotations

import numpy as np

from bnn_deploy.passes.onnx.qonnx.replacement import Replacement
from bnn_deploy.passes.onnx.qonnx.two_valued import two_valued

MOST_BITS = 32
# Modes that round the magnitude: what is added to it, and the operator.
MAGNITUDES = {"UP": (0.0, "Ceil"), "DOWN": (0.0, "Floor"), "HALF_UP": (0.5, "Floor"), "HALF_DOWN": (-0.5, "Ceil")}
ROUNDINGS = {"ROUND": "Round", "HALF_EVEN": "Round", "CEIL": "Ceil", "FLOOR": "Floor"}


def expand_quant(write: Replacement) -> str:
    """Write the standard nodes of one Quant or IntQuant node.

    Returns:
        The value that takes the place of the node's output.

    Raises:
        ModelFileError: inputs, types, bit width or rounding mode are not as described above; names the node.
    """
    value, scale, zero_point, bit_width = write.inputs(4)
    kind = write.float_type(value, scale, zero_point)
    bits = _bit_width(write, bit_width)
    signed = bool(write.attribute("signed", 1))
    centred, unscaled = write.is_neutral(zero_point, 0.0, value), write.is_neutral(scale, 1.0, value)

    result = value
    if not unscaled and not (bits == 1 and signed and centred and _keeps_signs(write, scale)):
        result = write.add("Div", result, scale)
    if not centred:
        result = write.add("Add", result, zero_point)
    if bits == 1 and signed:
        result = two_valued(write, result, np.zeros(()), -1.0, 1.0, kind)
    else:
        low, high = _range(bits, signed, bool(write.attribute("narrow", 1)))
        bounds = [write.new_constant(np.asarray(number), name, kind) for name, number in (("low", low), ("high", high))]
        result = _rounded(write, write.add("Clip", result, *bounds), kind)
    if not centred:
        result = write.add("Sub", result, zero_point)
    return result if unscaled else write.add("Mul", result, scale)


def _bit_width(write: Replacement, name: str) -> int:
    array = write.constant(name, "bit width")
    bits = array.reshape(-1)[0] if array.size == 1 else None
    if bits is None or not 1 <= bits <= MOST_BITS or bits != round(float(bits)):
        raise write.refusal(f"has the bit width {array.tolist()}, which must be one whole number from 1 to {MOST_BITS}")
    return int(bits)


def _range(bits: int, signed: bool, narrow: bool) -> tuple[int, int]:
    if signed:
        return -(2 ** (bits - 1)) + narrow, 2 ** (bits - 1) - 1
    return 0, 2**bits - 1 - narrow


def _keeps_signs(write: Replacement, scale: str) -> bool:
    """Whether x / scale >= 0 exactly where x >= 0: no quotient is negative and rounds to -0.0."""
    array = write.scope.array(scale)
    return array is not None and bool(np.all((array > 0) & (array <= 1)))


def _rounded(write: Replacement, value: str, kind: int) -> str:
    mode = write.attribute("rounding_mode", "ROUND").upper()
    if mode in ROUNDINGS:
        return write.add(ROUNDINGS[mode], value, named=True)
    if mode not in MAGNITUDES:
        known = ", ".join((*ROUNDINGS, *MAGNITUDES))
        raise write.refusal(f"has the rounding mode {mode!r}; known are {known}")
    addend, operator = MAGNITUDES[mode]
    magnitude = write.add("Abs", value)
    if addend:
        magnitude = write.add("Add", magnitude, write.new_constant(np.asarray(addend), "half", kind))
    return write.add("Mul", write.add("Sign", value), write.add(operator, magnitude), named=True)
