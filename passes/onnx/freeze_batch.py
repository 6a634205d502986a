"""Give the dynamic batch dimension its value and compute what then is constant.

Before::

    input: (batch, 3, 224, 224);  n = Shape(input)[0];  y = Reshape(x, Concat(n, -1))
After::

    input: (1, 3, 224, 224);      y = Reshape(x, [1, -1])

Where: first, since every later pass needs static shapes.
Not handled: dimensions other than the first (the importer says so).
"""

from __future__ import annotations

import onnx
import onnx_ir
from onnx_ir.passes import common
from onnxscript import optimizer

from bnn_deploy.errors import ModelFileError


def freeze_batch(model: onnx.ModelProto, batch: int) -> onnx.ModelProto:
    """A copy of ``model`` with a static batch.

    Raises:
        ModelFileError: the file has another fixed batch, or shapes that contradict each other.
    """
    frozen = onnx.ModelProto()
    frozen.CopyFrom(model)
    constants = {tensor.name for tensor in frozen.graph.initializer}
    for value in frozen.graph.input:
        dimensions = value.type.tensor_type.shape.dim
        if value.name in constants or not dimensions:
            continue
        if dimensions[0].dim_value and dimensions[0].dim_value != batch:
            raise ModelFileError(
                f"Input '{value.name}' has a fixed batch of {dimensions[0].dim_value}, asked for {batch}: compile with "
                f"--batch {dimensions[0].dim_value} or export with --batch dynamic."
            )
        dimensions[0].dim_value = batch
    del frozen.graph.value_info[:]
    for value in frozen.graph.output:
        value.type.tensor_type.ClearField("shape")
    try:
        frozen = onnx.shape_inference.infer_shapes(frozen, data_prop=True)
    except onnx.shape_inference.InferenceError as error:
        raise ModelFileError(
            f"The shapes in this ONNX file contradict each other: {str(error).splitlines()[0]}"
        ) from error
    intermediate = onnx_ir.from_proto(frozen)
    optimizer.fold_constants(intermediate)
    for tidy in (
        common.IdentityEliminationPass(),
        common.RemoveUnusedNodesPass(),
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
    ):
        tidy(intermediate)
    return onnx_ir.to_proto(intermediate)
