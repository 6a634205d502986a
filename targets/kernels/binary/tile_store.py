"""The end of a register tile: scaled sums to memory, through the layer's epilogue."""

from __future__ import annotations

from collections.abc import Sequence

from tvm.ir import Expr
from tvm.tirx import Buffer
from tvm.tirx.script import builder as T

from bnn_deploy.targets.kernels.epilogue import STORED_AS_THEY_ARE, operand_channel
from bnn_deploy.targets.kernels.packing.bitpack import above, packed_bits
from bnn_deploy.targets.kernels.parameters import epilogue_parameters
from bnn_deploy.targets.kernels.specification import ConvolutionSpecification
from bnn_deploy.targets.kernels.vector import Index, lanes_at, let, shuffled, view
from bnn_deploy.targets.kernels.words import WORD_BITS


class TileStore:
    """Stores vectors of a tile. ``buffers``: ``epilogue_parameters``; ``pixels``: the (images, rows, columns) of a call."""

    def __init__(
        self, layer: ConvolutionSpecification, buffers: Sequence[Buffer], pixels: tuple[int, int, int]
    ) -> None:
        self.epilogue = layer.epilogue
        self.buffers = dict(zip(epilogue_parameters(layer), buffers, strict=True))
        images = (f"image_{i}" for i in range(len(self.epilogue.images)))
        words = (f"words_{i}" for i in range(self.epilogue.planes))
        for name in (*["Y"] * self.epilogue.stores, *images, *words):
            buffer = self.buffers[name]
            self.buffers[name] = view(name + "_view", buffer, (*pixels, int(buffer.shape[-1])))

    def store(self, pixel: tuple[Index, Index, Index], output: Index, sums: Sequence[Expr], lanes: int) -> None:
        """Store neighbouring vectors of output channels, from ``output`` on, of one pixel."""
        results = []
        for index, value in enumerate(sums):
            outputs = output + index * lanes
            result = value
            if self.epilogue != STORED_AS_THEY_ARE:
                result = let("result", self._compute(pixel, outputs, value, lanes))
            if self.epilogue.stores:
                T.buffer_store(self.buffers["Y"], result, [*pixel, lanes_at(outputs, lanes)])
            results.append(result)
        if self.epilogue.planes:
            self._pack(pixel, output, results, lanes)

    def _compute(self, pixel: tuple[Index, Index, Index], output: Index, sums: Expr, lanes: int) -> Expr:
        def image(i: int) -> Expr:
            channels = lanes_at(operand_channel(self.epilogue.images[i], output), lanes)
            place = (*pixel, channels)
            return self.buffers[f"image_{i}"][place]

        def vector(i: int) -> Expr:
            return self.buffers[f"vector_{i}"][lanes_at(output, lanes)]

        return self.epilogue.compute(sums, image, vector, lanes)

    def _pack(self, pixel: tuple[Index, Index, Index], output: Index, results: Sequence[Expr], lanes: int) -> None:
        values = shuffled(results, range(WORD_BITS)) if len(results) > 1 else results[0]
        for plane in range(self.epilogue.planes):
            bounds = self.buffers["thresholds"][plane, lanes_at(output, WORD_BITS)]
            word = packed_bits(above(values, bounds, self.epilogue.zero), WORD_BITS, "x86_64")
            T.buffer_store(self.buffers[f"words_{plane}"], word, [*pixel, output // WORD_BITS])
