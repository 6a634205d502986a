"""What a kernel that packs has to compute: shapes and conventions, with nothing about how."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TypeAlias

from bnn_deploy.errors import CompileError
from bnn_deploy.targets.kernels.vector import FLOAT, WORD
from bnn_deploy.targets.kernels.words import word_count

# Shape and dtype of each parameter of a kernel, in order, by its name.
Parameters: TypeAlias = dict[str, tuple[tuple[int, ...], str]]


@dataclass(frozen=True)
class PackSpecification(ABC):
    """Turn float32 channels into bits: what all packing has in common.

    Attributes:
        batch, height, width, channels: shape of X, NHWC float32.
    """

    batch: int
    height: int
    width: int
    channels: int

    @property
    @abstractmethod
    def name(self) -> str:
        """What is done, as in names of kernels."""

    @property
    def three_valued(self) -> bool:
        """Whether the bits are two planes, of values that are not 0 and of positive ones, rather than one of positive ones."""
        return True

    @property
    def operands(self) -> Parameters:
        """What the kernel reads besides X."""
        return {}

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the kernel's outputs."""
        return ("Y",)

    @property
    def parameters(self) -> Parameters:
        """The kernel's parameters."""
        words = dict.fromkeys(self.outputs, (self.output_shape, WORD))
        return {"X": (self.input_shape, FLOAT), **self.operands, **words}

    @property
    def input_shape(self) -> tuple[int, int, int, int]:
        """X, float32 NHWC."""
        return (self.batch, self.height, self.width, self.channels)

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Words of each output, uint32 (N, H, W, ceil(C / 32)), or (N, H, 2, W, ceil(C / 32)); tail bits are 0."""
        planes = (2,) if self.three_valued else ()
        return (self.batch, self.height, *planes, self.width, word_count(self.channels))


@dataclass(frozen=True)
class SignPackSpecification(PackSpecification):
    """Compare with a threshold and pack the bits: ``(X, threshold, Y)``.

    Attributes:
        batch, height, width, channels: shape of X, NHWC float32.
        threshold_shape: shape of the threshold, ``(1 or batch, 1, 1, 1 or channels)`` float32.
        zero: -1 when x == threshold gives -1 (bit = x > threshold), +1 when it gives +1 (bit = x >= threshold); NaN gives
            bit 0 in both. 0 when it gives 0: two planes, x > threshold or x < threshold, and x > threshold; NaN is 0 in
            both planes.
    """

    threshold_shape: tuple[int, int, int, int] = (1, 1, 1, 1)
    zero: int = -1

    def __post_init__(self) -> None:
        batch, rows, columns, channels = self.threshold_shape
        if batch not in (1, self.batch) or channels not in (1, self.channels) or (rows, columns) != (1, 1):
            raise CompileError(
                f"sign_pack takes a threshold of shape (1 or {self.batch}, 1, 1, 1 or {self.channels}), "
                f"found {self.threshold_shape}."
            )
        if self.zero not in (-1, 0, 1):
            raise CompileError(f"sign_pack maps x == threshold to -1, 0 or +1, found zero={self.zero}.")

    @property
    def name(self) -> str:
        return "ternary_sign_pack" if self.three_valued else "sign_pack"

    @property
    def three_valued(self) -> bool:
        return self.zero == 0

    @property
    def operands(self) -> Parameters:
        return {"threshold": (self.threshold_shape, FLOAT)}


@dataclass(frozen=True)
class TernaryPackSpecification(PackSpecification):
    """Round to -1, 0, +1 and pack two bit planes, abs(x) > 0.5 and x > 0.5; NaN is 0 in both: ``(X, Y)``."""

    @property
    def name(self) -> str:
        return "ternary_pack"


@dataclass(frozen=True)
class MultiSignPackSpecification(PackSpecification):
    """Compare one tensor with several thresholds per channel in one pass over it, each as ``SignPackSpecification``.

    Attributes:
        batch, height, width, channels: shape of X, NHWC float32.
        planes: P thresholds per channel, float32 (P, C), and as many outputs: ``(X, thresholds, Y0, Y1, …)``.
        zero: for all of them, as in ``SignPackSpecification``.
    """

    planes: int
    zero: int = -1

    def __post_init__(self) -> None:
        if self.planes < 1 or self.zero not in (-1, 0, 1):
            raise CompileError(f"sign_pack_many needs planes >= 1 and zero of -1, 0 or +1, found {self}.")

    @property
    def name(self) -> str:
        return "ternary_sign_pack_many" if self.three_valued else "sign_pack_many"

    @property
    def three_valued(self) -> bool:
        return self.zero == 0

    @property
    def operands(self) -> Parameters:
        return {"thresholds": ((self.planes, self.channels), FLOAT)}

    @property
    def outputs(self) -> tuple[str, ...]:
        return tuple(f"Y{plane}" for plane in range(self.planes))


@dataclass(frozen=True)
class MultiTernaryPackSpecification(PackSpecification):
    """Add several biases to one tensor in one pass over it; each sum, rounded to float32, as ``TernaryPackSpecification``.

    Attributes:
        batch, height, width, channels: shape of X, NHWC float32.
        planes: P biases per channel, float32 (P, C), and as many outputs: ``(X, biases, Y0, Y1, …)``.
    """

    planes: int

    def __post_init__(self) -> None:
        if self.planes < 1:
            raise CompileError(f"ternary_pack_many needs planes >= 1, found {self}.")

    @property
    def name(self) -> str:
        return "ternary_pack_many"

    @property
    def operands(self) -> Parameters:
        return {"biases": ((self.planes, self.channels), FLOAT)}

    @property
    def outputs(self) -> tuple[str, ...]:
        return tuple(f"Y{plane}" for plane in range(self.planes))
