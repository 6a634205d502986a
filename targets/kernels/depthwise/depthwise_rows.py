"""Depthwise layers with one or two input channels per group and few taps: a row of X as one long vector of words.

All channels and pixels of a row are neighbouring bits, so one vector holds hundreds of outputs. The bits of the taps
become 4-bit codes (``bit_planes``): how many products are -1, or with ternary values or scales per tap, the product of
every tap. Then each lane looks its number up (``code_lanes``). Every column that sees the padding has its own code
without the taps that fall into it; rows of taps in the padding are masked out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

from tvm.ir import Expr
from tvm.tirx import Buffer
from tvm.tirx.script import builder as T

from bnn_deploy.targets.kernels.depthwise.bit_planes import (
    code_offset,
    counted_planes,
    merged,
    nibble_codes,
    store_codes,
)
from bnn_deploy.targets.kernels.depthwise.code_lanes import (
    CODE_COUNT,
    CodeTable,
    Decode,
    WordDecoder,
    constant_table,
    linear_table,
)
from bnn_deploy.targets.kernels.depthwise.operands import Operands
from bnn_deploy.targets.kernels.specification import ConvolutionSpecification
from bnn_deploy.targets.kernels.vector import (
    FLOAT,
    WORD,
    Index,
    constant,
    fused_multiply_add,
    lanes_at,
    let,
    loop,
    registers,
    spread,
    view,
)
from bnn_deploy.targets.kernels.words import WORD_BITS, word_count

ALL_BITS = 0xFFFFFFFF
# Products of -1 are counted in 4 bits.
LARGEST_CODE = 15


def is_row_layer(specification: ConvolutionSpecification) -> bool:
    """Whether this family computes the depthwise layer."""
    layer = specification
    return (
        layer.group_channels <= 2
        and layer.group_outputs == 1
        and layer.strides == (1, 1)
        and layer.in_channels % WORD_BITS == 0
        and layer.weight_bits <= LARGEST_CODE
        # Every output sees a tap.
        and max(layer.pads[0], layer.pads[2]) < layer.kernel_shape[0]
        and max(layer.pads[1], layer.pads[3]) < layer.kernel_shape[1]
    )


@dataclass(frozen=True)
class Tap:
    """One tap of a run: its index, where its words of X begin (of plane 0), and the bits that are not padding (None: all)."""

    index: int
    start: Index
    mask: Expr | None


@dataclass(frozen=True)
class Run:
    """Neighbouring outputs of a row that see the same taps: these, what reads each of their code buffers, and where in Y."""

    taps: Sequence[Tap]
    decoders: Sequence[Sequence[Decode]]
    result: Index


class RowEmitter:
    """Emits one row of outputs; ``operands`` have the image and the result flat."""

    def __init__(self, layer: ConvolutionSpecification, lanes: int, operands: Operands) -> None:
        self.layer, self.lanes, self.operands = layer, lanes, operands
        self.words = word_count(layer.in_channels)
        self.planes = layer.planes
        self.fields = WORD_BITS // layer.group_channels
        self.counted = not (layer.ternary or layer.tap_scaled)
        self.decoder = WordDecoder(lanes, 4 // layer.group_channels)

    def emit(self, image: Index, row: Index, result_row: Index) -> None:
        """Output row ``row`` of ``image``, which is row ``result_row`` of Y over all images."""
        layer = self.layer
        columns = layer.output_shape[2]
        top, left, bottom, right = layer.pads
        rows: list[tuple[Index, Expr | None]] = []
        for kernel_row in range(layer.kernel_shape[0]):
            image_row, mask = let("image_row", row + kernel_row - top), None
            if top or bottom:
                inside = let("inside_row", T.min(T.max(image_row, 0), layer.height - 1))
                mask = let("mask", T.Select(image_row == inside, T.uint32(ALL_BITS), T.uint32(0)))
                image_row = inside
            rows.append((let("row_start", (image * layer.height + image_row) * self.planes * layer.width), mask))
        interior = columns - left - right
        for column in range(columns):
            if interior <= 0 or column < left or column >= columns - right:
                self._emit_run(rows, result_row, column, 1)
            elif column == left:
                self._emit_run(rows, result_row, column, interior)

    def _emit_run(
        self, rows: Sequence[tuple[Index, Expr | None]], result_row: Index, column: int, columns: int
    ) -> None:
        """``columns`` outputs from ``column`` on, which see the same columns of taps."""
        layer = self.layer
        kernel_columns = layer.kernel_shape[1]
        taps = [
            Tap(kernel_row * kernel_columns + kernel_column, let("tap", (start + image_column) * self.words), mask)
            for kernel_row, (start, mask) in enumerate(rows)
            for kernel_column in range(kernel_columns)
            if 0 <= (image_column := column + kernel_column - layer.pads[1]) < layer.width
        ]
        run_words = columns * self.words
        lanes = min(self.lanes, 1 << (run_words.bit_length() - 1))
        run = Run(
            taps,
            self._decoders(taps),
            let("result", (result_row * layer.output_shape[2] + column) * layer.out_channels),
        )
        chunks = run_words // lanes
        if chunks == 1:
            self._emit_chunk(run, 0, lanes, 0)
        else:
            with loop("chunk", chunks) as chunk:
                self._emit_chunk(run, chunk * lanes, lanes, 0)
        if run_words % lanes:
            # The last vector overlaps its neighbour, whose words are not decoded twice.
            self._emit_chunk(run, run_words - lanes, lanes, lanes - run_words % lanes)

    def _emit_chunk(self, run: Run, start: Index, lanes: int, first: int) -> None:
        """``lanes`` words from ``start`` of the run on, of which those from ``first`` on are decoded."""
        count = self.decoder.code_words
        buffers = [registers("codes", WORD, count * lanes + self.lanes) for _ in run.decoders]
        self._emit_codes(run.taps, buffers, start, lanes)
        with loop("word", lanes, start=first) as word:
            offset = code_offset(word, count, lanes)
            channel = let("channel", (start + word) % self.words * self.fields)
            numbers = [
                decode(buffer, offset)
                for buffer, decoders in zip(buffers, run.decoders, strict=True)
                for decode in decoders
            ]
            for block, values in enumerate(zip(*numbers, strict=True)):
                outputs = lanes_at(channel + block * self.lanes, self.lanes)
                place = run.result + (start + word) * self.fields + block * self.lanes
                value = self._epilogue(run.taps, values, outputs)
                T.buffer_store(self.operands.result, value, [lanes_at(place, self.lanes)])

    def _epilogue(self, taps: Sequence[Tap], values: Sequence[Expr], outputs: Index) -> Expr:
        """Y from the dot product, or from those of all taps."""
        lanes, scale, shift = self.lanes, self.operands.scale, self.operands.shift
        if self.layer.tap_scaled:
            total = constant(0, FLOAT, lanes)
            for tap, value in zip(taps, values, strict=True):
                total = fused_multiply_add(value, scale[tap.index, outputs], total, lanes)
            return total + shift[outputs]
        # Sums of whole numbers this small are exact.
        dot = values[0]
        for value in values[1:]:
            dot = dot + value
        return fused_multiply_add(dot, scale[outputs], shift[outputs], lanes)

    def _loaded(self, tap: Tap, start: Index, lanes: int) -> tuple[Expr, Expr]:
        """Products that are -1 and products that are not 0, of the words from ``start`` of the run on."""
        # The planes of a row of X follow one another.
        first, last = (tap.start + plane * self.layer.width * self.words + start for plane in (0, self.planes - 1))
        weights = self.operands.weights[tap.index, lanes_at(start % self.words, lanes)]
        valid = constant(ALL_BITS, WORD, lanes) if tap.mask is None else spread(tap.mask, lanes)
        if self.layer.ternary:
            valid = let("valid", self.operands.image[lanes_at(first, lanes)] & valid)
        differing = self.operands.image[lanes_at(last, lanes)] ^ weights
        if self.layer.ternary or tap.mask is not None:
            differing = differing & valid
        return let("differing", differing), valid

    def _emit_codes(self, taps: Sequence[Tap], buffers: Sequence[Buffer], start: Index, lanes: int) -> None:
        loaded = [self._loaded(tap, start, lanes) for tap in taps]
        pairs = self.layer.group_channels == 2
        if self.counted:
            codes = nibble_codes(counted_planes([differing for differing, _ in loaded], lanes), lanes)
            if pairs:
                # The even and the odd bits of the fields; codes of at most 7 each.
                codes = [codes[0] + codes[1], codes[2] + codes[3]]
            store_codes(buffers[0], codes, lanes)
        elif pairs:
            for buffer, pair in zip(buffers, loaded, strict=True):
                store_codes(buffer, self._pair_codes(*pair, lanes), lanes)
        else:
            for index, buffer in enumerate(buffers):
                planes = [plane for pair in loaded[2 * index : 2 * index + 2] for plane in pair]
                store_codes(buffer, nibble_codes(planes, lanes), lanes)

    def _pair_codes(self, differing: Expr, valid: Expr, lanes: int) -> tuple[Expr, Expr]:
        """Codes of one tap with two channels per group; for the meaning see ``_decoders``."""
        if self.lanes != 8:
            return merged(differing, valid, 2, lanes)
        one, even = constant(1, WORD, lanes), constant(0x55555555, WORD, lanes)
        valid_above, differing_above = let("valid_above", valid >> one), let("differing_above", differing >> one)
        single = (valid ^ valid_above) & even
        negative = (differing | differing_above) & even
        double = valid & valid_above & ~(differing ^ differing_above) & even
        return merged(let("low", single | (negative << one)), let("high", double), 2, lanes)

    def _decoders(self, taps: Sequence[Tap]) -> list[list[Decode]]:
        """For each code buffer, what reads its codes as numbers; two when the codes are those of two taps."""
        layer, prepared = self.layer, self.decoder.prepared
        if self.counted:
            count: Expr = T.FloatImm(FLOAT, layer.group_channels * len(taps))
            if layer.pads[0] or layer.pads[2]:
                bits = sum((tap.mask & T.uint32(layer.group_channels) for tap in taps), T.uint32(0))
                count = let("valid_count", T.Cast(FLOAT, T.Cast("int32", bits)))
            bits = min(4, layer.weight_bits.bit_length())
            return [[prepared(linear_table(bits, count, -2))]]
        if layer.group_channels == 2:
            numbers = [(code >> 2).bit_count() - 2 * (code & 3).bit_count() for code in range(CODE_COUNT)]
            if self.lanes == 8:
                # Bit 0: one product is 0; bit 1: some product is -1; bit 2: both products are equal and not 0.
                numbers = [0, 1, 0, -1, 2, 0, -2, 0] * 2
            table = CodeTable(3 if self.lanes == 8 else 4, 0, constant_table(numbers))
            decode = prepared(table)
            return [[decode] for _ in taps]
        # Bits 0 and 1 are the products of one tap (-1, not 0), bits 2 and 3 those of the next.
        product = [0, 0, 1, -1]
        low = prepared(CodeTable(2, 0, constant_table([product[code & 3] for code in range(CODE_COUNT)])))
        high = prepared(CodeTable(2, 2, constant_table([product[code >> 2] for code in range(CODE_COUNT)])))
        return [[low, high][: len(taps) - tap] for tap in range(0, len(taps), 2)]


def emit_row(
    layer: ConvolutionSpecification, lanes: int, operands: Operands, position: tuple[Index, Index, Index]
) -> None:
    """One row of Y; ``position``: (image, row) of the output, and its row in Y over all images."""
    image = view("image", operands.image, (prod(layer.input_shape),))
    result = view("result", operands.result, (prod(layer.output_shape),))
    RowEmitter(layer, lanes, replace(operands, image=image, result=result)).emit(*position)
