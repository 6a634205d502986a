"""Pack all signs of one tensor in one pass over it.

Before::

    p = bnn.sign_pack(x, t0);  q = bnn.sign_pack(x, t1)          a = add(x, b0);  r = bnn.ternary_pack(a);  …
After::

    p, q = bnn.sign_pack_many(x, [t0, t1])                       r, … = bnn.ternary_pack_many(x, [b0, …])

A BiMLP block compares one tensor with five thresholds; this way each value is loaded once. A bias that only a three-valued
sign reads disappears into it; where a shortcut needs the sum too, it is fused into what follows there.
Where: on every function after ``block_rows``, which decides what is computed together; before kernels are chosen.
Not handled: thresholds that are computed, and signs of anything but images.
"""

from __future__ import annotations

import numpy as np
import tvm
from tvm import relax

from bnn_deploy.dialect.operators import call
from bnn_deploy.passes.relax.expressions import (
    channel_vector,
    is_constant,
    operator_name,
    static_shape,
)
from bnn_deploy.passes.relax.rewriter import DataflowRewriter

_RANK = 4


def merge_packs(module: tvm.IRModule) -> tvm.IRModule:
    """Run the pass; see the module's docstring."""
    return _MergePacks(module).run()


# (operator, source, zero): what packs must have in common.
_Key = tuple[str, relax.Var, int]


class _MergePacks(DataflowRewriter):
    def __init__(self, module: tvm.IRModule) -> None:
        super().__init__(module)
        self.groups: dict[_Key, list[tuple[relax.Var, np.ndarray]]] = {}  # packs, and the constant of each
        self.group_of: dict[relax.Var, _Key] = {}
        for variable, value in self.values.items():
            found = self._group(value)
            if found is not None:
                key, vector = found
                self.groups.setdefault(key, []).append((variable, vector))
                self.group_of[variable] = key
        self.merged: dict[relax.Var, relax.Expr] = {}

    def _group(self, value: relax.Expr) -> tuple[_Key, np.ndarray] | None:
        name = operator_name(value)
        if name == "bnn.sign_pack":
            source, constant = value.args
            zero = int(value.attrs["zero"])
        elif name == "bnn.ternary_pack":
            biased = self.producer(value.args[0], "relax.add")
            if biased is None:
                return None
            source, constant = reversed(biased.args) if is_constant(biased.args[0]) else biased.args
            zero = 0
            if static_shape(source) != static_shape(value.args[0]):
                return None
        else:
            return None
        vector = _channels(constant, source)
        return None if vector is None or not isinstance(source, relax.Var) else ((name, source, zero), vector)

    def rewrite(self, variable: relax.Var, value: relax.Call | relax.TupleGetItem) -> relax.Expr | None:
        if variable in self.merged:
            return self.merged[variable]
        key = self.group_of.get(variable)
        if key is None or (len(self.groups[key]) == 1 and key[0] == "bnn.sign_pack"):
            return None
        name, source, zero = key
        vectors = np.stack([vector for _, vector in self.groups[key]])
        attributes: dict[str, int | str] = {
            "layers": " + ".join(self.layer_name(member) for member, _ in self.groups[key])
        }
        if name == "bnn.sign_pack":
            attributes["zero"] = zero
        planes = self.emit(call(f"{name}_many", [self.lookup(source), relax.const(vectors)], attributes))
        for index, (member, _) in enumerate(self.groups[key]):
            self.merged[member] = self.emit(relax.TupleGetItem(planes, index))
        return self.merged[variable]


def _channels(constant: relax.Expr, x: relax.Expr) -> np.ndarray | None:
    """A constant as float32 (C,), if it is the same for all pixels of an image ``x``."""
    shape = static_shape(x)
    return channel_vector(constant, shape[-1]) if is_constant(constant) and len(shape) == _RANK else None
