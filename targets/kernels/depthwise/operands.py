"""What a depthwise kernel reads and writes."""

from __future__ import annotations

from dataclasses import dataclass

from tvm.tirx import Buffer


@dataclass(frozen=True)
class Operands:
    """The kernel's parameters, or views of them."""

    image: Buffer
    weights: Buffer
    scale: Buffer
    shift: Buffer
    result: Buffer
