"""The operators of standard ONNX, as far as several parts must agree on them."""

from __future__ import annotations

from onnx import ModelProto

from bnn_deploy.errors import ModelFileError

STANDARD_DOMAINS = ("", "ai.onnx")
# Those that multiply and add: what a binary layer looks like in a file that is not ours.
LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
# Those whose output holds only values of their input: a -1/0/+1 tensor stays one.
DATA_MOVEMENT = frozenset(
    {
        *("Concat", "DepthToSpace", "Expand", "Flatten", "Gather", "Identity", "Reshape", "Slice", "SpaceToDepth"),
        *("Split", "Squeeze", "Tile", "Transpose", "Unsqueeze"),
    }
)


def standard_opset(model: ModelProto) -> int:
    """Version of the standard operator set that ``model`` imports.

    Raises:
        ModelFileError: it imports none.
    """
    versions = [entry.version for entry in model.opset_import if entry.domain in STANDARD_DOMAINS]
    if not versions:
        raise ModelFileError("The model does not say which version of the ONNX operators it uses; export it again.")
    return int(max(versions))
