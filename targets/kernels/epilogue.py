"""What a convolution kernel does to its scaled sums while they are in registers: a short program of elementwise steps.

    shortcut, biases, PReLU -> floats that later layers read, and signs of them, packed

Values are numbered: 0 is the layer's result, then the images, then the vectors that the program reads, then the result of each
step. Images are read at the place that is computed; a vector has one element per output channel.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tvm.ir import Expr
from tvm.tirx.script import builder as T

from bnn_deploy.targets.kernels.vector import FLOAT, Index, constant, rounded

STEPS = ("add", "subtract", "multiply", "maximum", "minimum", "prelu")


@dataclass(frozen=True)
class ImageOperand:
    """An image of the output's rows and columns.

    Attributes:
        channels: channels that it has in memory.
        first, width: output channel ``o`` reads channel ``first + o % width``.
    """

    channels: int
    first: int
    width: int


@dataclass(frozen=True)
class Epilogue:
    """The program of a kernel; by default the sums are stored as they are.

    Attributes:
        images: what it reads beside the sums.
        vectors: how many vectors of one float per output channel it reads.
        steps: (name out of ``STEPS``, left value, right value), in order; the last result is what is stored.
        stores: whether floats are stored.
        planes: how often the result is compared with thresholds per channel, and packed.
        zero: as in ``SignPackSpecification``, for all planes.
    """

    images: tuple[ImageOperand, ...] = ()
    vectors: int = 0
    steps: tuple[tuple[str, int, int], ...] = ()
    stores: bool = True
    planes: int = 0
    zero: int = -1

    def compute(self, sums: Expr, image: Callable[[int], Expr], vector: Callable[[int], Expr], lanes: int) -> Expr:
        """The result for ``lanes`` output channels; ``image(i)`` and ``vector(i)`` load operands."""
        values = [sums, *(image(i) for i in range(len(self.images))), *(vector(i) for i in range(self.vectors))]
        for name, left, right in self.steps:
            values.append(_step(name, values[left], values[right], lanes))
        return values[-1] if self.steps else sums


# The epilogue of a layer without one.
STORED_AS_THEY_ARE = Epilogue()


def _step(name: str, left: Expr, right: Expr, lanes: int) -> Expr:
    if name == "add":
        return left + right
    if name == "subtract":
        return left - right
    if name == "multiply":
        return rounded(left * right)
    if name == "maximum":
        return T.max(left, right)
    if name == "minimum":
        return T.min(left, right)
    # Behind the choice, so that AVX-512 computes the product under the mask that chooses it.
    return rounded(T.Select(left > constant(0, FLOAT, lanes), left, left * right))


def operand_channel(operand: ImageOperand, output: Index) -> Index:
    """Channel of an operand at the output channel where a tile's vector begins; vectors do not reach over ``width``."""
    return operand.first + (output % operand.width)
