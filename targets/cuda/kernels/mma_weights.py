"""Weights of the mma kernel: tiles as they lie in shared memory, and what the dot products start from.

One array, uint32::

    [channel tile][chunk][16 channels][k-step][lane][4]   [class][output channel]   [class of output row]   [class of output column]

The first part is what each lane loads at once: of rows ``lane // 4`` and ``lane // 4 + 8`` of an mma (0, 1), words
``4 * (lane % 4) + 2 * step`` (first two) and the next ones (last two) of a chunk. A group of 32 output channels is two mma, and
the rows of a lane in both are four neighbouring channels: row ``g + 8 h`` of mma ``i`` is channel ``4 g + 2 i + h``.

The second part is ``base`` of ``dot = base + alpha * counted + beta * popcount(activations of the window)``, int32. It depends
on which taps lie inside of the image: pixels with the same taps are a class. Padded activations are 0 bits. With v for the
taps inside of the image and o for those outside::

    xor: counted = popcount(a ^ w) over v + popcount(w) over o    base = bits(v) + 2 popcount(w over o)    alpha = -2, beta =  0
    and: counted = popcount(a & w) over v                         base = bits(v) - 2 popcount(w over v)    alpha =  4, beta = -2

Three-valued activations are two products that are added, positive ones with the weights and negative ones with their inverse:
an activation of 0 counts 1 in xor and 0 in and, +-1 count 1 - product in xor and (1 + product) / 2 in and. No class is needed::

    xor: base = all bits of all chunks, alpha = -1, beta = 0      and: base = 0, alpha = 2, beta = -1 (of nonzero activations)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bnn_deploy.targets.cuda.kernels.mma_tiling import CHUNK, STEPS, MmaTiling
from bnn_deploy.targets.cuda.kernels.padding_classes import image_axes
from bnn_deploy.targets.kernels.specification import ConvolutionSpecification
from bnn_deploy.targets.kernels.weights import weight_signs, weight_words
from bnn_deploy.targets.kernels.words import WORD_BITS


@dataclass(frozen=True)
class Formula:
    """How counts become dot products.

    Attributes:
        alpha, beta: as above.
        base: the same for all pixels and output channels; None: it is in the array.
    """

    alpha: int
    beta: int
    base: int | None


def formula(tiling: MmaTiling) -> Formula:
    """The one of a layer."""
    layer, xor = tiling.specification, tiling.form == "xor"
    if layer.ternary:
        return Formula(-1, 0, tiling.chunks * CHUNK * WORD_BITS) if xor else Formula(2, -1, 0)
    if xor:
        return Formula(-2, 0, layer.weight_bits if _all_inside(layer) else None)
    return Formula(4, -2, None)


def _all_inside(layer: ConvolutionSpecification) -> bool:
    return all(axis.classes.all() for axis in image_axes(layer))


def classes(layer: ConvolutionSpecification) -> int:
    """How many classes of pixels the layer has."""
    rows, columns = image_axes(layer)
    return len(rows.classes) * len(columns.classes)


def tile_words(tiling: MmaTiling) -> int:
    """Length of the first part of the array."""
    return tiling.channel_tiles * tiling.chunks * tiling.tile.channels * CHUNK


def array_words(tiling: MmaTiling) -> int:
    """Length of the whole array."""
    layer = tiling.specification
    if formula(tiling).base is not None:
        return tile_words(tiling)
    _, rows, columns, outputs = layer.image_output_shape
    return tile_words(tiling) + classes(layer) * outputs + rows + columns


def pack_weights(weights: np.ndarray, tiling: MmaTiling) -> np.ndarray:
    """ONNX weights, uint8 (O, ceil(K / 8)), as uint32 (``array_words``,)."""
    layer = tiling.specification
    words = weight_words(weights, layer).reshape(layer.out_channels, tiling.words)
    channels = tiling.channel_tiles * tiling.tile.channels
    padded = np.zeros((channels, tiling.chunks * CHUNK), np.uint32)
    padded[: layer.out_channels, : tiling.words] = words
    groups = tiling.tile.channels // WORD_BITS
    # tile, group, row, mma, half; chunk, lane of four, step, word
    axes = padded.reshape(tiling.channel_tiles, groups, 8, 2, 2, tiling.chunks, 4, STEPS, 2)
    tiles = axes.transpose(0, 5, 1, 3, 7, 2, 6, 8, 4)
    if formula(tiling).base is not None:
        return np.ascontiguousarray(tiles.reshape(-1))
    rows, columns_axis = image_axes(layer)
    parts = (_bases(weights, tiling).reshape(-1), rows.places * len(columns_axis.classes), columns_axis.places)
    return np.concatenate([tiles.reshape(-1), *(part.astype(np.int32).view(np.uint32) for part in parts)])


def _bases(weights: np.ndarray, tiling: MmaTiling) -> np.ndarray:
    """int64 (classes, O)."""
    layer = tiling.specification
    ones = (weight_signs(weights, layer) > 0).sum(-1)
    rows, columns = image_axes(layer)
    inside = (rows.classes[:, None, :, None] & columns.classes[None, :, None, :]).reshape(-1, layer.taps)
    bits = inside.sum(-1)[:, None] * layer.group_channels
    counted, factor = (~inside, 2) if tiling.form == "xor" else (inside, -2)
    bases: np.ndarray = bits + factor * counted.astype(np.int64) @ ones.T
    return bases
