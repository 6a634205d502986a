"""The rule of every operator that packed Relax is made of: its name -> what computes it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from bnn_deploy.exact import binary, elementwise, movement, pack, products, reductions
from bnn_deploy.exact.operation import Operation

Result = np.ndarray | tuple[np.ndarray, ...]
Rule = Callable[..., Result]


def _plain(function: Callable[..., np.ndarray]) -> Rule:
    return lambda operation, *arrays: function(*arrays)


RULES: dict[str, Rule] = {
    "bnn.sign": pack.float_sign,
    "bnn.ternary": pack.float_ternary,
    "bnn.sign_pack": pack.sign_pack,
    "bnn.ternary_pack": pack.ternary_pack,
    "bnn.shift_words": pack.shift_words,
    "bnn.packed_conv2d": binary.packed_conv2d,
    "bnn.packed_tap_scaled_conv2d": binary.packed_tap_scaled_conv2d,
    "bnn.packed_linear": binary.packed_linear,
    **{name: _plain(function) for name, function in elementwise.PLAIN.items()},
    "relax.clip": elementwise.clip,
    "relax.nn.prelu": elementwise.prelu,
    "relax.nn.leakyrelu": elementwise.leaky_relu,
    "relax.where": elementwise.where,
    "relax.astype": elementwise.cast,
    **reductions.RULES,
    "relax.nn.conv2d": products.conv2d,
    "relax.nn.conv2d_transpose": products.conv2d_transpose,
    "relax.nn.conv1d": products.conv1d,
    "relax.matmul": products.matmul,
    **dict.fromkeys(("relax.reshape", "relax.expand_dims", "relax.squeeze", "relax.flatten"), movement.reshape),
    "relax.broadcast_to": movement.broadcast_to,
    "relax.permute_dims": movement.permute_dims,
    "relax.concat": movement.concat,
    "relax.split": movement.split,
    "relax.strided_slice": movement.strided_slice,
    "relax.take": movement.take,
    "relax.tile": movement.tile,
    "relax.nn.pad": movement.pad,
}


def compute(operation: Operation, arguments: list[object]) -> Result:
    """The operator's results, float32 bits as a processor target computes them.

    Raises:
        KeyError: no operator of this name has a rule.
        NoRuleError: not in this form.
    """
    with np.errstate(all="ignore"):
        return RULES[operation.name](operation, *arguments)
