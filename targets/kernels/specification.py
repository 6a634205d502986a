"""What a kernel has to compute: shapes and conventions, with nothing about how."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from bnn_deploy.errors import CompileError
from bnn_deploy.targets.kernels.epilogue import STORED_AS_THEY_ARE, Epilogue
from bnn_deploy.targets.kernels.pack_specification import PackSpecification
from bnn_deploy.targets.kernels.words import word_count

# Dot products are converted to float32 once; whole numbers up to here are exact in it.
LARGEST_DOT_PRODUCT = 2**24
# Kernels keep two bits of each segment of shifted words in a word.
MOST_SEGMENTS = 15

# For each run of output words: (first word of X, words, row shift, column shift).
Segments: TypeAlias = tuple[tuple[int, int, int, int], ...]


@dataclass(frozen=True)
class ConvolutionSpecification:
    """A 2-D convolution of packed activations with packed +-1 weights.

    A binary linear layer is the 1x1 case: ``height = width = 1`` and the rows as ``batch``.

    Attributes:
        batch, height, width, in_channels: the activations, NHWC; C is the number of channels before packing.
        out_channels: O.
        kernel_shape: (kh, kw).
        strides: (rows, columns).
        pads: zeros around the image (top, left, bottom, right); a padded tap contributes 0.
        group: C and O are split into this many groups, as in ONNX Conv.
        ternary: the activations are -1, 0, +1 in two planes rather than -1, +1 in one.
        tap_scaled: one scale per output channel and tap instead of one per output channel.
        block_rows: 0: one call computes the whole output. Otherwise one call computes that many output rows of one
            image from the whole of X, and the kernel takes the index of the block of rows (over all images) as a last
            parameter.
        epilogue: what the kernel does to its sums before it stores them.
        shifts: segments as in ``ShiftWordsSpecification``: the layer reads X's words as these move them; (): as they are.
            Only kernels of GPUs do so, of layers that ``may_shift``.
    """

    batch: int
    height: int
    width: int
    in_channels: int
    out_channels: int
    kernel_shape: tuple[int, int] = (1, 1)
    strides: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    group: int = 1
    ternary: bool = False
    tap_scaled: bool = False
    block_rows: int = 0
    epilogue: Epilogue = STORED_AS_THEY_ARE
    shifts: Segments = ()

    def __post_init__(self) -> None:
        sizes = (self.batch, self.height, self.width, self.in_channels, self.out_channels, *self.kernel_shape)
        if min(*sizes, *self.strides, self.group) < 1 or min(self.pads) < 0:
            raise CompileError(f"A convolution needs sizes >= 1 and pads >= 0, found {self}.")
        if self.in_channels % self.group or self.out_channels % self.group:
            raise CompileError(
                f"group {self.group} must divide the {self.in_channels} input and {self.out_channels} output channels."
            )
        if self.weight_bits >= LARGEST_DOT_PRODUCT:
            raise CompileError(f"{self.weight_bits} weights per output channel are too many: 2**24 are exact.")
        if min(self.image_output_shape) < 1:
            raise CompileError(f"The kernel {self.kernel_shape} is larger than the padded image of {self}.")
        if self.block_rows < 0 or (self.block_rows and self.image_output_shape[1] % self.block_rows):
            raise CompileError(
                f"Blocks of {self.block_rows} rows must divide the {self.image_output_shape[1]} of {self}."
            )
        if self.shifts and not self.may_shift(self.shifts):
            raise CompileError(
                f"A convolution shifts words only with a 1x1 kernel, stride 1, no pads, one group and signs in one plane, in "
                f"at most {MOST_SEGMENTS} segments that are as many words as X has, found {self}."
            )

    def may_shift(self, segments: Segments) -> bool:
        """Whether a kernel of this layer can read X's words as ``segments`` move them: each place of a window is one word."""
        words = word_count(self.in_channels)
        window = (self.kernel_shape, self.strides, self.pads, self.group) == ((1, 1), (1, 1), (0, 0, 0, 0), 1)
        plain = window and not (self.ternary or self.tap_scaled or self.block_rows)
        inside = all(first >= 0 and count >= 1 and first + count <= words for first, count, _, _ in segments)
        whole = sum(count for _, count, _, _ in segments) == words
        return plain and inside and whole and len(segments) <= MOST_SEGMENTS

    @property
    def group_channels(self) -> int:
        """Input channels of one group."""
        return self.in_channels // self.group

    @property
    def group_outputs(self) -> int:
        """Output channels of one group."""
        return self.out_channels // self.group

    @property
    def taps(self) -> int:
        """kh * kw."""
        return self.kernel_shape[0] * self.kernel_shape[1]

    @property
    def weight_bits(self) -> int:
        """K: weights of one output channel, in ONNX order (kh, kw, c)."""
        return self.taps * self.group_channels

    @property
    def values(self) -> str:
        """What the activations are, as in names of kernels."""
        return "ternary" if self.ternary else "binary"

    @property
    def planes(self) -> int:
        """Bit planes of the activations."""
        return 2 if self.ternary else 1

    @property
    def plane_shape(self) -> tuple[int, int, int, int, int]:
        """Packed X with its planes as an axis of their own: (N, H, planes, W, ceil(C / 32))."""
        return (self.batch, self.height, self.planes, self.width, word_count(self.in_channels))

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Packed X, uint32: (N, H, W, ceil(C / 32)), or (N, H, 2, W, ceil(C / 32)) when ternary."""
        batch, height, _, width, words = self.plane_shape
        return self.plane_shape if self.ternary else (batch, height, width, words)

    @property
    def output_shape(self) -> tuple[int, int, int, int]:
        """Y of one call, float32: (N, Ho, Wo, O), or (1, block_rows, Wo, O)."""
        batch, rows, columns, outputs = self.image_output_shape
        return (1, self.block_rows, columns, outputs) if self.block_rows else (batch, rows, columns, outputs)

    @property
    def image_output_shape(self) -> tuple[int, int, int, int]:
        """Y of the whole layer, float32 (N, Ho, Wo, O)."""
        top, left, bottom, right = self.pads
        rows = (self.height + top + bottom - self.kernel_shape[0]) // self.strides[0] + 1
        columns = (self.width + left + right - self.kernel_shape[1]) // self.strides[1] + 1
        return (self.batch, rows, columns, self.out_channels)

    @property
    def scale_shape(self) -> tuple[int, ...]:
        """The kernel's scale, float32: (O,), or (kh * kw, O) when tap scaled (taps first, unlike ONNX's (O, taps))."""
        return (self.taps, self.out_channels) if self.tap_scaled else (self.out_channels,)

    @property
    def binary_macs(self) -> int:
        """Multiply-accumulates on bits in one call; padded taps count, as in the papers."""
        batch, rows, columns, outputs = self.output_shape
        return batch * rows * columns * outputs * self.weight_bits


@dataclass(frozen=True)
class ShiftWordsSpecification:
    """Move words of an image by rows and columns, wrapping around.

    Attributes:
        batch, height, width, words: shape of X, NHW and words of packed channels, uint32.
        segments: which words an output pixel takes, from the pixel ``((row + row shift) % height, (column + column shift) %
            width)``.
        block_rows: as in ``ConvolutionSpecification``.
    """

    batch: int
    height: int
    width: int
    words: int
    segments: Segments
    block_rows: int = 0

    def __post_init__(self) -> None:
        if any(first < 0 or count < 1 or first + count > self.words for first, count, _, _ in self.segments):
            raise CompileError(f"shift_words moves words that the image does not have: {self}.")
        if not self.segments or self.block_rows < 0 or (self.block_rows and self.height % self.block_rows):
            raise CompileError(f"shift_words needs segments, and blocks of rows that divide the image, found {self}.")

    @property
    def input_shape(self) -> tuple[int, int, int, int]:
        """X, uint32."""
        return (self.batch, self.height, self.width, self.words)

    @property
    def image_output_shape(self) -> tuple[int, int, int, int]:
        """Y of all blocks together, uint32."""
        return (self.batch, self.height, self.width, sum(count for _, count, _, _ in self.segments))

    @property
    def output_shape(self) -> tuple[int, int, int, int]:
        """Y of one call, uint32."""
        batch, rows, columns, words = self.image_output_shape
        return (1, self.block_rows, columns, words) if self.block_rows else (batch, rows, columns, words)


Specification: TypeAlias = PackSpecification | ShiftWordsSpecification | ConvolutionSpecification
