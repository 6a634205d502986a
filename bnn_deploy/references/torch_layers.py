"""The values of every layer from PyTorch: the model that an exported file describes, built again, with hooks on its modules.

A Sign or Ternary node of an exported file is named after the module that it was (``export.layers``), so the tensors are the
same as those of onnxruntime: x is what the module is given, the thresholds are its ``boundaries``, the values what it returns.
Real values are known where a module without children became one node of the file; others are left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bnn_deploy.errors import ModelFileError
from bnn_deploy.export.provenance import rebuild
from bnn_deploy.frontend.open_model import OpenedModel
from bnn_deploy.models.layers import BinaryActivation, TernaryActivation
from bnn_deploy.references.graph_layers import GraphLayers
from bnn_deploy.references.layer_values import LayerValues, RawLayers, RawSign


class TorchLayers(GraphLayers):
    """A ``LayerReference``."""

    name = "torch"

    def __init__(self, opened: OpenedModel, path: Path, weights: Path | None = None) -> None:
        """Build the model that the metadata of the file ``path`` describe, see ``provenance.rebuild``.

        Args:
            opened: the file, of ``bnn-deploy export``.
            path: its name.
            weights: the checkpoint that it was exported with, if it was.

        Raises:
            InputError: the metadata describe a model that cannot be.
            ModelFileError: the file does not say what model it is, or the checkpoint does not fit.
        """
        super().__init__(opened, path)
        metadata = {item.key: item.value for item in self.model.metadata_props}
        classes = self._shapes.required_classes(path)
        self._module = rebuild(metadata, weights, path, self.input_shape, classes).module
        self._modules = dict(self._module.named_modules())
        self._activations: dict[str, BinaryActivation | TernaryActivation] = {}
        for node in self.signs:
            activation = self._modules.get(node.name)
            if not isinstance(activation, BinaryActivation | TernaryActivation):
                raise ModelFileError(
                    f"{path}: its {node.op_type} node {node.name!r} is no activation module of the PyTorch model; "
                    "export the model again, or use --reference onnxruntime."
                )
            self._activations[node.output[0]] = activation

    def capture(self, images: np.ndarray, floats: Sequence[str] = ()) -> LayerValues:
        """Run the images.

        Args:
            images: float32 (n, *input_shape).
            floats: names of float32 values of ``model``; those that are no module's output are left out.

        Raises:
            InputError: images of another shape or type.
            ModelFileError: a module is called more than once, or not at all.
        """
        outputs = self._outputs_of_modules()
        known = {tensor: outputs[tensor] for tensor in floats if tensor in outputs}
        return self._measure(images, self._rounding(images, list(known)), lambda part: self._run(part, known))

    def _outputs_of_modules(self) -> dict[str, str]:
        """ONNX values that are the output of a module, with the module's path."""
        population = Counter(node.name.partition("/")[0] for node in self.model.graph.node)
        found = {}
        for node in self.model.graph.node:
            module = self._modules.get(node.name)
            leaf = module is not None and not any(module.children()) and population[node.name] == 1
            if leaf and len(node.output) == 1:
                found[node.output[0]] = node.name
        output = self.model.graph.output[0].name
        return {tensor: path for tensor, path in found.items() if tensor != output} | {output: ""}

    def _run(self, images: np.ndarray, floats: dict[str, str]) -> RawLayers:
        signs: dict[str, RawSign] = {}
        values: dict[str, np.ndarray] = {}
        hooks = []
        try:
            for tensor, activation in self._activations.items():
                hooks.append(activation.register_forward_hook(_sign_hook(tensor, activation.boundaries, signs)))
            for tensor, path in floats.items():
                hooks.append(self._modules[path].register_forward_hook(_value_hook(tensor, values)))
            with torch.inference_mode():
                logits = self._module(torch.tensor(images)).numpy()
        finally:
            for hook in hooks:
                hook.remove()
        missing = [node.name for node in self.signs if node.output[0] not in signs]
        if missing:
            raise ModelFileError(
                f"{self.path}: PyTorch does not run the module {missing[0]!r}, which the file has; export the model again, or "
                "use --reference onnxruntime."
            )
        return RawLayers(signs, values, logits)


Hook = Callable[[nn.Module, tuple[Any, ...], Any], None]


def _sign_hook(tensor: str, boundaries: Sequence[float], found: dict[str, RawSign]) -> Hook:
    thresholds = tuple(np.asarray(bound, np.float32) for bound in boundaries)

    def hook(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        if tensor in found:
            raise ModelFileError(
                f"The value {tensor!r} of the file is an activation that PyTorch calls more than once in one inference, so that "
                "its values have no one name; use --reference onnxruntime."
            )
        # Copies: what follows may write over either tensor.
        found[tensor] = RawSign(inputs[0].numpy().copy(), thresholds, output.numpy().astype(np.int8))

    return hook


def _value_hook(tensor: str, found: dict[str, np.ndarray]) -> Hook:
    def hook(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        found[tensor] = output.numpy().copy()

    return hook
