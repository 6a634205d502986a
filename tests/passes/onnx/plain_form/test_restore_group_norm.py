"""GroupNormalization, taken apart by an exporter and put together again."""

from __future__ import annotations

import logging
import warnings

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from torch import nn

from bnn_deploy.passes.onnx.plain_form.normalise_graph import normalise_graph


def exported(groups: int, dynamo: bool) -> tuple[ir.Model, bytes]:
    """GroupNorm of 12 channels with learned numbers, at operator set 18, batch dynamic."""
    import io

    torch.manual_seed(groups)
    module = nn.GroupNorm(groups, 12)
    nn.init.normal_(module.weight)
    nn.init.normal_(module.bias)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    example = torch.randn(2, 12, 5, 4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if dynamo:
            dynamic = ({0: torch.export.Dim("batch")},)
            program = torch.onnx.export(
                module, (example,), dynamo=True, opset_version=18, dynamic_shapes=dynamic, verbose=False
            )
            proto = program.model_proto
        else:
            buffer = io.BytesIO()
            torch.onnx.export(
                module, (example,), buffer, dynamo=False, opset_version=18, input_names=["x"],
                dynamic_axes={"x": {0: "batch"}},
            )  # fmt: skip
            import onnx

            proto = onnx.ModelProto.FromString(buffer.getvalue())
    assert any(node.op_type == "InstanceNormalization" for node in proto.graph.node)
    return normalise_graph(proto), proto.SerializeToString()


def run(model: bytes, x: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x})[0]


@pytest.mark.parametrize("dynamo", [True, False])
@pytest.mark.parametrize("groups", [1, 3, 12])
def test_exported_group_norm_is_one_node_again(groups: int, dynamo: bool) -> None:
    """Breaks if a foreign GroupNorm stays in pieces, gets other groups or factors, or loses its dynamic batch."""
    normal, before = exported(groups, dynamo)
    assert [node.op_type for node in normal.graph] == ["GroupNormalization"]
    assert normal.graph.node(0).attributes["num_groups"].as_int() == groups
    x = np.random.default_rng(0).standard_normal((3, 12, 5, 4)).astype(np.float32)
    after = ir.to_proto(normal)
    after.ir_version = 10
    # Means of up to 240 numbers of size 1 in another order, twice: 2 * 240 * 2^-24, times factors of up to about 4.
    np.testing.assert_allclose(run(after.SerializeToString(), x), run(before, x), atol=4 * 2 * 240 * 2**-24, rtol=0)
