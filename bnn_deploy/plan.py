"""The execution plan: the straight line of kernel calls that a compiled network is, over one planned arena.

The passes end in a plan, the code generator turns it into C tables, and profile and validate report by its steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from math import prod


class Space(Enum):
    """Where a kernel argument lives at run time."""

    INPUT = "input"
    OUTPUT = "output"
    WEIGHTS = "weights"
    ARENA = "arena"


@dataclass(frozen=True)
class Argument:
    """One pointer given to a kernel: ``offset`` bytes into ``space`` (64-byte aligned within weights and arena)."""

    space: Space
    offset: int


@dataclass(frozen=True)
class TensorSpecification:
    """Shape (batch included) and dtype of a network input or output."""

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"

    @property
    def bytes(self) -> int:
        """Size in bytes."""
        return prod(self.shape) * {"float32": 4, "int64": 8, "int32": 4}[self.dtype]


@dataclass(frozen=True)
class Step:
    """One kernel call.

    Attributes:
        kernel: C symbol ``int32_t kernel(void *, …)``, one pointer per argument, 0 on success.
        layer: module path of the PyTorch layer (or ONNX node) this call computes; several layers fused are joined by `` + ``.
        kind: ``"binary"`` (popcount kernel), ``"pack"`` (sign + bitpack) or ``"float"``.
        arguments: in the kernel's order, inputs first, then outputs, then scratch.
        binary_macs: multiply-accumulates on bits in one call.
    """

    kernel: str
    layer: str
    kind: str
    arguments: tuple[Argument, ...]
    binary_macs: int = 0


@dataclass(frozen=True)
class ExecutionPlan:
    """A whole network: steps in order, constant bytes, and the size of the one arena they share."""

    steps: tuple[Step, ...]
    inputs: tuple[TensorSpecification, ...]
    outputs: tuple[TensorSpecification, ...]
    weights: bytes
    arena_bytes: int
