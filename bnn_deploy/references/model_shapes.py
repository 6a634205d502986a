"""What a model takes and gives: one image in, one row of logits out."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from pathlib import Path

from onnx import ModelProto, ValueInfoProto

from bnn_deploy.errors import InputError


@dataclass(frozen=True)
class ModelShapes:
    """Of one inference.

    Attributes:
        image: shape of one image.
        batch: fixed batch size, 0 if any will do.
        classes: number of logits; None where the file does not say.
    """

    image: tuple[int, ...]
    batch: int
    classes: int | None

    def required_classes(self, path: Path) -> int:
        """The number of logits; raises InputError where the file ``path`` does not say it."""
        if self.classes is None:
            raise InputError(f"{path}: does not say how many logits it has; export it again.")
        return self.classes


def model_shapes(model: ModelProto, path: Path) -> ModelShapes:
    """The shapes of the model in the file ``path``.

    Raises:
        InputError: not one input and one output, or an image of no fixed size.
    """
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    if len(inputs) != 1 or len(model.graph.output) != 1:
        raise InputError(
            f"{path}: has {len(inputs)} inputs and {len(model.graph.output)} outputs; "
            "validate compares models with one image in and one row of logits out."
        )
    batch, *image = _dimensions(inputs[0])
    if not image or min(image) < 1 or batch < 0:
        raise InputError(
            f"{path}: {inputs[0].name!r} needs a batch dimension and fixed sizes after it; export with a fixed image size."
        )
    _, *logits = _dimensions(model.graph.output[0])
    return ModelShapes(tuple(image), batch, prod(logits) if logits and min(logits) > 0 else None)


def _dimensions(value: ValueInfoProto) -> list[int]:
    """Dimensions, 0 for those that are free; [0] if there is none."""
    return [dimension.dim_value for dimension in value.type.tensor_type.shape.dim] or [0]
