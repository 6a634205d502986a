"""From the dot products of a binary layer to what it stores: scale, shift, epilogue, floats and packed signs.

Everything here is done by one thread for neighbouring output channels of one pixel; pixels are counted over all images.
How bits of several threads become a word is left to the kernel.
"""

from __future__ import annotations

from collections.abc import Sequence

from tvm.ir import Expr
from tvm.script.ir_builder import IRBuilder
from tvm.tirx import Buffer
from tvm.tirx.script import builder as T

from bnn_deploy.targets.kernels.epilogue import STORED_AS_THEY_ARE, operand_channel
from bnn_deploy.targets.kernels.packing.bitpack import above
from bnn_deploy.targets.kernels.parameters import result_parameters
from bnn_deploy.targets.kernels.specification import ConvolutionSpecification
from bnn_deploy.targets.kernels.vector import (
    FLOAT,
    Index,
    cast,
    fused_multiply_add,
    lanes_at,
    let,
    shuffled,
    view,
)


class Result:
    """What one thread does with its dot products.

    Attributes:
        planes: how many words of signs each 32 output channels have; 0 without packed signs.
    """

    def __init__(self, layer: ConvolutionSpecification, buffers: Sequence[Buffer]) -> None:
        """``buffers``: ``result_parameters``."""
        self.epilogue, self.planes = layer.epilogue, layer.epilogue.planes
        self._outputs = layer.out_channels
        self._held: dict[str, Buffer] = {}
        self._buffers = dict(zip(result_parameters(layer), buffers, strict=True))
        self.scale, self.shift = self._buffers["scale"], self._buffers["shift"]
        batch, rows, columns, _ = layer.image_output_shape
        images = (f"image_{i}" for i in range(len(self.epilogue.images)))
        words = (f"words_{i}" for i in range(self.planes))
        for name in (*["Y"] * self.epilogue.stores, *images, *words):
            buffer = self._buffers[name]
            self._buffers[name] = view(f"{name}_view", buffer, (batch * rows * columns, int(buffer.shape[-1])))

    def hold(self, channels: int) -> None:
        """Declare registers for all that depends on the output channel only, for a thread that goes over many pixels."""
        for name in self._by_channel():
            self._held[name] = T.alloc_buffer((channels,), FLOAT, scope="local")
            IRBuilder.name(f"held_{name}", self._held[name])

    def fetch(self, output: Index, place: int, lanes: int) -> None:
        """Load the output channels from ``output`` on into the registers from ``place`` on; they are used in place of memory."""
        for name, (buffer, leading) in self._by_channel().items():
            at = (*leading, lanes_at(output, lanes))
            T.buffer_store(self._held[name], buffer[at], [lanes_at(place, lanes)])

    def scaled(self, dots: Sequence[Expr], output: Index, place: int = 0) -> list[Expr]:
        """``fma(dot, scale, shift)`` for int32 dot products of the output channels from ``output`` on.

        ``place``: here and below, where these channels were fetched to.
        """
        scales, shifts = (self._channels(name, output, len(dots), place) for name in ("scale", "shift"))
        return [
            let("scaled", fused_multiply_add(cast(dot, FLOAT, 1), scale, shift, 1))
            for dot, scale, shift in zip(dots, scales, shifts, strict=True)
        ]

    def computed(self, sums: Sequence[Expr], pixel: Index, output: Index, place: int = 0) -> list[Expr]:
        """The epilogue's results (float32) for sums of the output channels from ``output`` on; the sums if there is none."""
        if self.epilogue == STORED_AS_THEY_ARE:
            return list(sums)
        lanes = len(sums)
        images = [self._image(i, pixel, output, lanes) for i in range(len(self.epilogue.images))]
        vectors = [self._channels(f"vector_{i}", output, lanes, place) for i in range(self.epilogue.vectors)]

        def result(lane: int, value: Expr) -> Expr:
            program = self.epilogue.compute(value, lambda i: images[i][lane], lambda i: vectors[i][lane], 1)
            return let("result", program)

        return [result(lane, value) for lane, value in enumerate(sums)]

    def store(self, values: Sequence[Expr], pixel: Index, output: Index) -> None:
        """Store floats, if the layer stores any. Several values are one store: ``output`` must be a multiple of them."""
        if not self.epilogue.stores:
            return
        y = self._buffers["Y"]
        if self._outputs % len(values) == 0:
            stored = values[0] if len(values) == 1 else shuffled(values, range(len(values)))
            T.buffer_store(y, stored, [pixel, lanes_at(output, len(values))])
            return
        for lane, value in enumerate(values):
            T.buffer_store(y, value, [pixel, output + lane])

    def signs(self, plane: int, values: Sequence[Expr], output: Index, place: int = 0) -> list[Expr]:
        """Whether signs of results are +1 (bool); those of NaN are not."""
        bounds = self._channels(f"bound_{plane}", output, len(values), place)
        return [above(value, bound, self.epilogue.zero) for value, bound in zip(values, bounds, strict=True)]

    def bit(self, plane: int, value: Expr, output: Index) -> Expr:
        """``signs`` of one result."""
        (sign,) = self.signs(plane, [value], output)
        return sign

    def store_word(self, plane: int, word: Expr, pixel: Index, index: Index) -> None:
        """Store the signs (uint32) of the output channels from ``32 * index`` on."""
        T.buffer_store(self._buffers[f"words_{plane}"], word, [pixel, index])

    def _by_channel(self) -> dict[str, tuple[Buffer, tuple[int, ...]]]:
        """Buffers that have an element for each output channel, and the indices before it."""
        found: dict[str, tuple[Buffer, tuple[int, ...]]] = {"scale": (self.scale, ()), "shift": (self.shift, ())}
        found |= {f"vector_{i}": (self._buffers[f"vector_{i}"], ()) for i in range(self.epilogue.vectors)}
        return found | {f"bound_{plane}": (self._buffers["thresholds"], (plane,)) for plane in range(self.planes)}

    def _channels(self, name: str, output: Index, lanes: int, place: int) -> list[Expr]:
        if name in self._held:
            return [self._held[name][place + lane] for lane in range(lanes)]
        buffer, leading = self._by_channel()[name]
        return _neighbours(name, buffer, leading, output, lanes)

    def _image(self, i: int, pixel: Index, output: Index, lanes: int) -> list[Expr]:
        operand, image = self.epilogue.images[i], self._buffers[f"image_{i}"]
        if operand.width % lanes == 0:
            return _neighbours("image", image, (pixel,), operand_channel(operand, output), lanes)
        # Neighbours may lie at both ends of a period.
        return [let("image", image[pixel, operand_channel(operand, output + lane)]) for lane in range(lanes)]


def _neighbours(name: str, buffer: Buffer, leading: tuple[Index, ...], start: Index, lanes: int) -> list[Expr]:
    """Neighbouring elements: one load if the code generator sees that it is aligned."""
    at = (*leading, lanes_at(start, lanes))
    loaded = let(name, buffer[at])
    return [loaded] if lanes == 1 else [shuffled([loaded], [lane]) for lane in range(lanes)]
