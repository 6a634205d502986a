"""From the weights of an ONNX file to the layouts that kernels read."""

from __future__ import annotations

import numpy as np

from bnn_deploy.bits import as_words, packed_size, unpack_bits
from bnn_deploy.errors import CompileError
from bnn_deploy.targets.kernels.specification import ConvolutionSpecification
from bnn_deploy.targets.kernels.words import WORD_BITS


def weight_signs(weights: np.ndarray, specification: ConvolutionSpecification) -> np.ndarray:
    """Unpack ONNX weights, uint8 (O, ceil(K / 8)), to int8 +-1 of shape (O, kh * kw, C / group).

    Raises:
        CompileError: another dtype or shape.
    """
    expected = (specification.out_channels, packed_size(specification.weight_bits))
    if weights.dtype != np.uint8 or weights.shape != expected:
        raise CompileError(f"Packed weights must be uint8 {expected}, found {weights.dtype} {weights.shape}.")
    signs = unpack_bits(weights, specification.weight_bits)
    return signs.reshape(specification.out_channels, specification.taps, specification.group_channels)


def weight_words(weights: np.ndarray, specification: ConvolutionSpecification) -> np.ndarray:
    """ONNX weights as uint32 words that restart at every tap: (O, kh * kw, ceil((C / group) / 32)), tail bits 0."""
    positive = weight_signs(weights, specification) > 0
    tail = -specification.group_channels % WORD_BITS
    padded = np.pad(positive, ((0, 0), (0, 0), (0, tail)))
    return as_words(np.packbits(padded, axis=-1, bitorder="little"))


def channel_words(weights: np.ndarray, specification: ConvolutionSpecification) -> np.ndarray:
    """Weights of a depthwise layer packed like an image's channels: (kh * kw, ceil(C / 32)), tail bits 0.

    Bit ``k`` of word ``j`` of a tap belongs to input channel ``32 * j + k``; one output channel per group is assumed.
    """
    positive = weight_signs(weights, specification) > 0
    channels = positive.transpose(1, 0, 2).reshape(specification.taps, specification.in_channels)
    return as_words(np.packbits(channels, axis=-1, bitorder="little"))
