"""What a variable is said to hold of the ONNX file, it holds, after every Relax pass on random networks."""

from __future__ import annotations

import numpy as np
import tvm
from hypothesis import HealthCheck, given, settings

from bnn_deploy.bundle.tensor_table import TensorEntry
from bnn_deploy.dialect.values import Value, network_values, values_of, with_values
from bnn_deploy.passes.relax.decompose_group_norm import decompose_group_norm
from bnn_deploy.passes.relax.drop_identity import drop_identity
from bnn_deploy.passes.relax.expressions import main_bindings, operator_name
from bnn_deploy.passes.relax.fold_affine import fold_affine
from bnn_deploy.passes.relax.fold_threshold import fold_threshold
from bnn_deploy.passes.relax.gather_shifts import gather_shifts
from bnn_deploy.passes.relax.merge_layers import merge_layers
from bnn_deploy.passes.relax.merge_packs import merge_packs
from bnn_deploy.passes.relax.pack import pack
from bnn_deploy.passes.relax.split_means import split_means
from bnn_deploy.passes.relax.to_channels_last import to_channels_last
from tests.passes.evaluate import evaluate_all
from tests.passes.random_networks import networks

PACKED = (
    drop_identity,
    fold_threshold,
    fold_affine,
    to_channels_last,
    decompose_group_norm,
    split_means,
    pack,
    gather_shifts,
    merge_layers,
)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(networks())
def test_variables_hold_what_they_are_said_to(case: tuple[tvm.IRModule, np.ndarray]) -> None:
    """Breaks: validate compares one layer with another, or with the same one transposed or packed otherwise."""
    module, x = case
    tensors = [b.var for b in main_bindings(module["main"]) if hasattr(b.var.ty, "shape")]
    module = with_values(module, {variable: Value(f"onnx {variable.name}") for variable in tensors})
    expected = {
        f"onnx {v.name}": array for v, array in evaluate_all(module, x).items() if isinstance(array, np.ndarray)
    }
    for transform in (*PACKED, merge_packs):
        module = transform(module)
        _check(module, x, expected, transform.__name__)
    signs = {v.tensor for v in network_values(module) if v.kind == "words"}
    packs = [b for b in main_bindings(module["main"]) if operator_name(b.value).endswith(("_pack", "_pack_many"))]
    assert len(signs) >= bool(packs), "packed signs are of no value of the file"


def _check(module: tvm.IRModule, x: np.ndarray, expected: dict[str, np.ndarray], name: str) -> None:
    held, found = values_of(module), evaluate_all(module, x)
    for variable, array in found.items():
        value = held.get(variable.name)
        if value is None:
            continue
        entry = TensorEntry(
            tensor=value.tensor,
            kind="words" if value.channels else "floats",
            layer="",
            step=0,
            shape=array.shape,
            channels=value.channels,
            channels_last=bool(value.channels_last),
            ternary=bool(value.ternary),
            places=(),
        )
        onnx = expected[value.tensor]
        assert entry.onnx_shape == onnx.shape, f"after {name}: {variable.name}"
        np.testing.assert_array_equal(entry.to_onnx(array), onnx, err_msg=f"after {name}: {variable.name}")
        if entry.kind == "words":
            np.testing.assert_array_equal(entry.from_onnx(onnx), array, err_msg=f"after {name}: {variable.name}")
