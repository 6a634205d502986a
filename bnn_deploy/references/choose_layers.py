"""The layers of a model from the reference that the user names."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from bnn_deploy.errors import InputError

if TYPE_CHECKING:
    from bnn_deploy.frontend.open_model import OpenedModel
    from bnn_deploy.references.onnxruntime_layers import OnnxruntimeLayers
    from bnn_deploy.references.torch_layers import TorchLayers


def open_layers(
    name: str, opened: OpenedModel, onnx_path: Path, weights: Path | None = None
) -> OnnxruntimeLayers | TorchLayers:
    """Prepare the layers of the model in ``onnx_path``, as a ``LayerReference``.

    Args:
        name: "onnxruntime" or "torch".
        opened: the file, opened with the options that it was compiled with; for "torch" one that was exported.
        onnx_path: its name.
        weights: the checkpoint that it was exported with, for "torch".

    Raises:
        InputError: another name, or a checkpoint that is not wanted.
        ModelFileError: the file or the checkpoint cannot be used.
    """
    if name == "onnxruntime":
        if weights is not None:
            raise InputError(
                "--weights is for --reference torch only: onnxruntime takes the weights from the ONNX file."
            )
        from bnn_deploy.references.onnxruntime_layers import OnnxruntimeLayers

        return OnnxruntimeLayers(opened, onnx_path)
    if name == "torch":
        from bnn_deploy.references.torch_layers import TorchLayers

        return TorchLayers(opened, onnx_path, weights)
    raise InputError(f"Unknown reference {name!r} for layers; choose onnxruntime or torch.")
