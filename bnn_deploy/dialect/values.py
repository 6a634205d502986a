"""Which ONNX value each variable of a Relax module holds, and how it lies there: the module attribute ``tensors``.

The importer notes it, passes carry it on (a variable holds what the one it replaces held), and the memory plan tells where it
is while the network runs. So a difference between a compiled network and its ONNX file has a place in both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import tvm
from tvm import relax

from bnn_deploy.plan import NetworkValue

_KEY = "tensors"


@dataclass(frozen=True)
class Value:
    """An ONNX value in a variable.

    Attributes:
        tensor: its name in the ONNX file that the compiler reads.
        channels_last: a rank-4 value, NCHW in the file, lies NHWC.
        channels: channels that words hold; 0 for floats.
        ternary: words of a three-valued tensor: two planes, see ``bits.plane_axis``.
    """

    tensor: str
    channels_last: int = 0
    channels: int = 0
    ternary: int = 0


def values_of(module: tvm.IRModule) -> dict[str, Value]:
    """The values of a module's ``main`` by the names of the variables; none for a module that notes none."""
    attributes = {} if module.attrs is None else dict(module.attrs.items())
    rows = attributes.get(_KEY, {})
    return {
        str(name): Value(
            str(row["tensor"]), int(row["channels_last"]), channels=int(row["channels"]), ternary=int(row["ternary"])
        )
        for name, row in rows.items()
    }


def with_values(module: tvm.IRModule, values: Mapping[relax.Var, Value]) -> tvm.IRModule:
    """The module with its values noted; ``values`` may name variables that are gone by now. Without any it stays as it is."""
    known = module.attrs is not None and _KEY in dict(module.attrs.items())
    if not values and not known:
        return module
    return module.with_attr(_KEY, {variable.name: asdict(value) for variable, value in values.items()})


def network_values(module: tvm.IRModule) -> tuple[NetworkValue, ...]:
    """The values of packed Relax in the order of its bindings; of several variables with the same one in the same
    order of axes, the first."""
    held = values_of(module)
    attributes = {} if module.attrs is None else dict(module.attrs.items())
    layers = {str(key): str(name) for key, name in attributes.get("layer_names", {}).items()}
    found: dict[tuple[str, str, int], NetworkValue] = {}
    for block in module["main"].body.blocks:
        for binding in block.bindings:
            variable, value = binding.var, held.get(binding.var.name)
            if value is None or str(variable.ty.dtype) != ("uint32" if value.channels else "float32"):
                continue
            identifier = variable.name.split(":")[0]
            kind = "words" if value.channels else "floats"
            found.setdefault(
                (value.tensor, kind, value.channels_last),
                NetworkValue(
                    tensor=value.tensor,
                    kind=kind,
                    layer=layers.get(identifier, identifier),
                    shape=tuple(int(extent) for extent in variable.ty.shape.values),
                    channels_last=bool(value.channels_last),
                    channels=value.channels,
                    ternary=bool(value.ternary),
                ),
            )
    return tuple(found.values())
