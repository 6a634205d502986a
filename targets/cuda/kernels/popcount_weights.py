"""The constants of the popcount kernel, one array of uint32: words of weights, and what padding adds to dot products.

    words     [group, tile][steps of 4 words][32 lanes][4]    a warp loads 512 bytes of one piece
              [32 lanes][4]                                   0: the kernel loads one step ahead
    rows      [Ho]                                            class of an output row times the classes of columns,
    columns   [Wo]                                            of an output column; both only if padding must be taken out
    bases     [class][group, tile][32 lanes]                  int32, likewise

Words of X that lie in the padding are 0, as if all these activations were -1. With D the differing bits of all taps, d those of
one tap, s the sum of a tap's weights and C its channels, of which as many are +1 as (C + s) / 2::

    dot = sum over valid taps of (C - 2 d) = C taps + sum over padded taps of s - 2 D = base - 2 D

Classes are those of ``padding_classes``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from bnn_deploy.targets.cuda.kernels.padding_classes import Axis, image_axes
from bnn_deploy.targets.cuda.kernels.popcount_tiling import LANES, STEP, PopcountTiling
from bnn_deploy.targets.kernels.weights import weight_signs, weight_words


@dataclass(frozen=True)
class WeightLayout:
    """Where the parts of the array begin.

    Attributes:
        tiling: of the kernel.
    """

    tiling: PopcountTiling

    @property
    def outputs(self) -> int:
        """Lanes of all tiles of all groups."""
        return self.tiling.specification.group * self.tiling.group_tiles * LANES

    @property
    def steps(self) -> int:
        """Steps of a tile."""
        return self.tiling.chunks * self.tiling.chunk // STEP

    @property
    def rows_start(self) -> int:
        """Index of the first row's class."""
        return (self.outputs * self.steps + LANES) * STEP

    @property
    def columns_start(self) -> int:
        """Index of the first column's class."""
        return self.rows_start + len(self.axes[0].places)

    @property
    def bases_start(self) -> int:
        """Index of the first base."""
        return self.columns_start + len(self.axes[1].places)

    @cached_property
    def size(self) -> int:
        """Elements of the array."""
        if not self.tiling.corrected:
            return self.rows_start
        rows, columns = self.axes
        return self.bases_start + len(rows.classes) * len(columns.classes) * self.outputs

    @cached_property
    def axes(self) -> tuple[Axis, Axis]:
        """The classes of output rows and columns."""
        return image_axes(self.tiling.specification)


def pack_weights(weights: np.ndarray, layout: WeightLayout) -> np.ndarray:
    """ONNX weights, uint8 (O, ceil(K / 8)), as uint32 ``(layout.size,)``."""
    layer = layout.tiling.specification
    words = _with_idle_lanes(weight_words(weights, layer).reshape(layer.out_channels, -1), layout)
    words = np.pad(words, ((0, 0), (0, layout.steps * STEP - words.shape[1])))
    steps = words.reshape(-1, LANES, layout.steps, STEP).transpose(0, 2, 1, 3)
    parts = [steps, np.zeros(LANES * STEP, np.uint32)]
    if layout.tiling.corrected:
        tap_sums = weight_signs(weights, layer).sum(axis=2, dtype=np.int32).reshape(-1, *layer.kernel_shape)
        rows, columns = layout.axes
        padded = ~np.einsum("ri,cj->rcij", rows.classes, columns.classes)
        bases = layer.weight_bits + np.einsum("rcij,oij->orc", padded, tap_sums)
        parts += [
            (rows.places * len(columns.classes)).astype(np.uint32),
            columns.places.astype(np.uint32),
            _with_idle_lanes(bases.reshape(layer.out_channels, -1), layout).T.astype(np.int32).view(np.uint32),
        ]
    return np.concatenate([part.reshape(-1) for part in parts])


def _with_idle_lanes(values: np.ndarray, layout: WeightLayout) -> np.ndarray:
    """(O, n) as (layout.outputs, n); lanes without a channel have 0."""
    layer = layout.tiling.specification
    grouped = values.reshape(layer.group, layer.group_outputs, -1)
    missing = layout.tiling.group_tiles * LANES - layer.group_outputs
    return np.pad(grouped, ((0, 0), (0, missing), (0, 0))).reshape(layout.outputs, -1)
