"""Which taps of a window lie inside of the image: output rows, and columns, with the same ones are a class.

3x3 with a padding of 1 has 3 by 3 classes: what padding adds to a dot product is a constant for each of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bnn_deploy.targets.kernels.specification import ConvolutionSpecification


@dataclass(frozen=True)
class Axis:
    """Output rows, or columns, of an image.

    Attributes:
        classes: bool (classes, kernel size): which taps lie inside of the image; in the order of appearance.
        places: the class of each output row or column.
    """

    classes: np.ndarray
    places: np.ndarray


def image_axes(layer: ConvolutionSpecification) -> tuple[Axis, Axis]:
    """Rows and columns."""
    _, rows, columns, _ = layer.image_output_shape
    (kernel_rows, kernel_columns), (top, left) = layer.kernel_shape, layer.pads[:2]
    return (
        _axis(rows, layer.strides[0], top, kernel_rows, layer.height),
        _axis(columns, layer.strides[1], left, kernel_columns, layer.width),
    )


def _axis(outputs: int, stride: int, pad: int, kernel: int, size: int) -> Axis:
    places = np.arange(outputs)[:, None] * stride - pad + np.arange(kernel)
    taps = (places >= 0) & (places < size)
    found, first, indices = np.unique(taps, axis=0, return_index=True, return_inverse=True)
    # numpy sorts; classes are numbered as they appear.
    order = np.argsort(first)
    return Axis(found[order], np.argsort(order)[indices.reshape(-1)])
