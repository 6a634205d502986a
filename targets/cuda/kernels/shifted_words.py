"""Shifted words as addressing: which word of which pixel of X a kernel reads instead of a word of its own pixel.

A 1x1 layer of rolled words (``ConvolutionSpecification.shifts``) needs no rolled copy of its image: a kernel copies words in
pieces, a piece lies in one segment, and a segment says from which pixel it comes. That is chosen by comparisons of the piece's
place, which all pixels share.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import gcd

from tvm.ir import Expr
from tvm.tirx.script import builder as T

from bnn_deploy.targets.kernels.specification import ConvolutionSpecification

# 128 bits, which a thread loads at once.
MAXIMUM_WORDS = 4


@dataclass(frozen=True)
class Segment:
    """Neighbouring words of a window: they begin at ``start``, and are those of X ``offset`` words further on in the pixel
    ``rows`` further down and ``columns`` to the right, both at least 0 and wrapping around."""

    start: int
    offset: int
    rows: int
    columns: int


def segments(layer: ConvolutionSpecification) -> tuple[Segment, ...]:
    """The segments of the layer's window, in order."""
    found, start = [], 0
    for first, count, rows, columns in layer.shifts:
        found.append(Segment(start, first - start, rows % layer.height, columns % layer.width))
        start += count
    return tuple(found)


def piece_words(words: int, shifts: Sequence[tuple[int, int, int, int]]) -> int:
    """1, 2 or 4 words, so that no piece lies in two segments or two pixels of ``words``, and all are aligned."""
    return gcd(MAXIMUM_WORDS, words, *(size for first, count, _, _ in shifts for size in (first, count)))


def by_segment(layer: ConvolutionSpecification, word: Expr, value: Callable[[int, Segment], Expr | int]) -> Expr | int:
    """The ``value`` (of a segment's number and the segment) where ``word`` of the window lies; beyond all, of the last one."""
    first, *others = enumerate(segments(layer))
    result = value(*first)
    for number, segment in others:
        result = T.Select(word >= segment.start, value(number, segment), result)
    return result
