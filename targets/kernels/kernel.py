"""A kernel chosen for a layer and a target: its name, its TIR, and the layouts of its constants."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bnn_deploy.errors import CompileError
from bnn_deploy.targets.kernels.specification import ConvolutionSpecification, Specification

if TYPE_CHECKING:
    from tvm.tirx import PrimFunc


@dataclass(frozen=True)
class Kernel:
    """One kernel for one specification on one target.

    Attributes:
        name: by the grammar of ``table``; it does not contain the layer's shape.
        kind: ``"binary"`` (popcount kernel) or ``"pack"``, as in ``plan.Step``.
        specification: what it computes.
        builder: makes the TIR.
        weight_packer: from ONNX weights to the kernel's layout; None for kernels without weights.
        takes_epilogue: whether there is such a kernel with an epilogue, too.
        packs_signs: whether that may also pack signs.
    """

    name: str
    kind: str
    specification: Specification
    builder: Callable[[], PrimFunc]
    weight_packer: Callable[[np.ndarray], np.ndarray] | None = None
    takes_epilogue: bool = False
    packs_signs: bool = False

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Shape of the last parameter."""
        return self.specification.output_shape

    @property
    def binary_macs(self) -> int:
        """Multiply-accumulates on bits in one call."""
        return self.specification.binary_macs if isinstance(self.specification, ConvolutionSpecification) else 0

    def build(self) -> PrimFunc:
        """A private PrimFunc over buffers of static shape, without target or global symbol.

        Its parameters are ``PackSpecification.parameters``, ``(X, Y)`` for shift_words, and those of ``parameters`` for
        convolutions.

        Raises:
            CompileError: on GPUs, a tensor is too large for indices of 32 bits.
        """
        return self.builder()

    def pack_weights(self, weights: np.ndarray) -> np.ndarray:
        """ONNX weights, uint8 (O, ceil(K / 8)), in this kernel's layout (uint32).

        Raises:
            CompileError: the kernel has no weights, or they have another dtype or shape.
        """
        if self.weight_packer is None:
            raise CompileError(f"Kernel {self.name} has no weights.")
        return self.weight_packer(weights)

    def pack_scale(self, scale: np.ndarray) -> np.ndarray:
        """ONNX scale, float32 (O,) or (O, kh * kw), in this kernel's layout: (O,) or (kh * kw, O).

        Raises:
            CompileError: the kernel has no scale, or it has another shape.
        """
        layer = self.specification
        if not isinstance(layer, ConvolutionSpecification):
            raise CompileError(f"Kernel {self.name} has no scale.")
        expected = (layer.out_channels, layer.taps) if layer.tap_scaled else (layer.out_channels,)
        if scale.shape != expected:
            raise CompileError(f"The scale of kernel {self.name} must have shape {expected}, found {scale.shape}.")
        return np.ascontiguousarray(scale.T, np.float32)
