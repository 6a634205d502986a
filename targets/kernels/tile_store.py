"""The end of a register tile: scaled sums to memory, through the layer's epilogue if it has one.

An epilogue's operands are parameters between the layer's own and what is stored::

    (X, weights, scale, shift, image_0 …, vector_0 …, [thresholds], [Y], words_0 …, [block])

image_i: float32 (1, rows, columns, operand.channels); vector_i: float32 (O,); thresholds: float32 (planes, O);
Y: float32 ``output_shape``, if floats are stored; words_i: uint32 (1, rows, columns, O / 32).
"""

from __future__ import annotations

from collections.abc import Sequence

from tvm.ir import Expr
from tvm.tirx import Buffer
from tvm.tirx.script import builder as T

from bnn_deploy.targets.kernels.bit_planes import shuffled
from bnn_deploy.targets.kernels.bitpack import packed_bits
from bnn_deploy.targets.kernels.epilogue import operand_channel
from bnn_deploy.targets.kernels.specification import WORD_BITS, ConvolutionSpecification
from bnn_deploy.targets.kernels.vector import FLOAT, WORD, Index, lanes_at, let, view


def store_parameters(layer: ConvolutionSpecification) -> dict[str, tuple[tuple[int, ...], str]]:
    """Names, shapes and dtypes of the parameters after ``shift``."""
    epilogue, shape, outputs = layer.epilogue, layer.output_shape, layer.out_channels
    if epilogue is None:
        return {"Y": (shape, FLOAT)}
    parameters = {f"image_{i}": ((*shape[:-1], operand.channels), FLOAT) for i, operand in enumerate(epilogue.images)}
    parameters |= {f"vector_{i}": ((outputs,), FLOAT) for i in range(epilogue.vectors)}
    if epilogue.planes:
        parameters["thresholds"] = ((epilogue.planes, outputs), FLOAT)
    if epilogue.stores:
        parameters["Y"] = (shape, FLOAT)
    return parameters | {f"words_{i}": ((*shape[:-1], outputs // WORD_BITS), WORD) for i in range(epilogue.planes)}


class TileStore:
    """Stores vectors of a tile. ``buffers`` are the parameters above, ``pixels`` the (images, rows, columns) of a call."""

    def __init__(
        self, layer: ConvolutionSpecification, buffers: Sequence[Buffer], pixels: tuple[int, int, int]
    ) -> None:
        self.epilogue = layer.epilogue
        named = dict(zip(store_parameters(layer), buffers, strict=True))

        def seen(name: str) -> Buffer:
            return view(name + "_view", named[name], (*pixels, int(named[name].shape[-1])))

        self.y = seen("Y") if "Y" in named else None
        if self.epilogue is not None:
            self.images = [seen(f"image_{i}") for i in range(len(self.epilogue.images))]
            self.vectors = [named[f"vector_{i}"] for i in range(self.epilogue.vectors)]
            self.thresholds = named.get("thresholds")
            self.words = [seen(f"words_{i}") for i in range(self.epilogue.planes)]

    def store(self, pixel: tuple[Index, Index, Index], output: Index, sums: Sequence[Expr], lanes: int) -> None:
        """Store neighbouring vectors of output channels, from ``output`` on, of one pixel."""
        results = []
        for index, value in enumerate(sums):
            outputs = output + index * lanes
            result = value if self.epilogue is None else let("result", self._compute(pixel, outputs, value, lanes))
            if self.y is not None:
                T.buffer_store(self.y, result, [*pixel, lanes_at(outputs, lanes)])
            results.append(result)
        if self.epilogue is not None and self.epilogue.planes:
            self._pack(pixel, output, results, lanes)

    def _compute(self, pixel: tuple[Index, Index, Index], output: Index, sums: Expr, lanes: int) -> Expr:
        def image(i: int) -> Expr:
            channel = operand_channel(self.epilogue.images[i], output)
            return self.images[i][(*pixel, lanes_at(channel, lanes))]

        def vector(i: int) -> Expr:
            return self.vectors[i][lanes_at(output, lanes)]

        return self.epilogue.compute(sums, image, vector, lanes)

    def _pack(self, pixel: tuple[Index, Index, Index], output: Index, results: Sequence[Expr], lanes: int) -> None:
        values = shuffled(results, range(WORD_BITS)) if len(results) > 1 else results[0]
        for plane, words in enumerate(self.words):
            bounds = self.thresholds[plane, lanes_at(output, WORD_BITS)]
            condition = values > bounds if self.epilogue.zero == -1 else values >= bounds
            T.buffer_store(words, packed_bits(condition, WORD_BITS, "x86_64"), [*pixel, output // WORD_BITS])
