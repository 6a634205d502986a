"""Turn rolls of packed words into one gather per layer.

Before (ShiftBlock: each quarter of the channels is rolled in another direction)::

    a, b = x[:, :1], x[:, 1:];  r = concat(b, a, axis=1)[..., :8];  …;  s = concat(r, …, axis=3);  y = bnn.packed_conv2d(s, …)
After::

    s = bnn.shift_words(x) {segments: (first word, words, rows, columns), …};  y = bnn.packed_conv2d(s, …)

A roll is slices and a concatenation in ONNX: ten copies of the whole image for one layer, each waiting for the last. What
a word's place means is followed through them here: from which word of which pixel it comes. A gather belongs to the stage
of the layer that reads it, and only the words before the rolls are stored.
Where: after ``pack``, when rolls move words; before ``block_rows``.
Not handled: words of several tensors in one layer, and images that are not rolled but cut; they stay slices and copies.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import tvm
from tvm import relax

from bnn_deploy.dialect.operators import call
from bnn_deploy.passes.relax.expressions import operator_name, slice_of, static_shape
from bnn_deploy.passes.relax.rewriter import DataflowRewriter

_ROWS, _COLUMNS, _WORDS, _RANK = 1, 2, 3, 4
_LAYERS = ("bnn.packed_conv2d", "bnn.packed_tap_scaled_conv2d")


def gather_shifts(module: tvm.IRModule) -> tvm.IRModule:
    """Run the pass; see the module's docstring."""
    return _GatherShifts(module).run()


@dataclass(frozen=True)
class _Segment:
    """Neighbouring words that come from ``source`` at word ``first``, ``rows`` further down and ``columns`` to the right."""

    source: relax.Var
    first: int
    count: int
    rows: int = 0
    columns: int = 0


@dataclass(frozen=True)
class _Part:
    """A slice of ``whole`` from ``begin`` to ``end`` along its rows or columns."""

    whole: relax.Var
    axis: int
    begin: int
    end: int


class _GatherShifts(DataflowRewriter):
    def __init__(self, module: tvm.IRModule) -> None:
        super().__init__(module)
        self.parts: dict[relax.Var, _Part] = {}
        self.segments: dict[relax.Var, tuple[_Segment, ...]] = {}
        for variable, value in self.values.items():
            if isinstance(variable.ty, relax.TensorType) and len(static_shape(variable)) == _RANK:
                self._follow(variable, value)
        self.gathered: dict[tuple[_Segment, ...], relax.Var] = {}

    def rewrite(self, variable: relax.Var, value: relax.Call | relax.TupleGetItem) -> relax.Expr | None:
        if operator_name(value) not in _LAYERS:
            return None
        words, *parameters = value.args
        segments = self.segments.get(words)
        if segments is None or len({segment.source for segment in segments}) != 1:
            return None
        if segments not in self.gathered:
            plain = [(s.first, s.count, s.rows, s.columns) for s in segments]
            attributes: dict[str, Any] = {"segments": plain, "block_rows": 0}
            self.gathered[segments] = self.emit(call("bnn.shift_words", [self.lookup(segments[0].source)], attributes))
        return self.emit(relax.Call(value.op, [self.gathered[segments], *parameters], value.attrs))

    def _follow(self, variable: relax.Var, value: relax.Expr) -> None:
        if str(variable.ty.dtype) != "uint32":
            return
        if operator_name(value) == "relax.strided_slice":
            self._follow_slice(variable, value)
        elif operator_name(value) == "relax.concat":
            fields = list(value.args[0].fields)
            axis = int(value.attrs.axis) % _RANK
            if axis == _WORDS:
                self._join(variable, [segment for field in fields for segment in self._segments_of(field)])
            else:
                self._follow_roll(variable, fields, axis)

    def _follow_slice(self, variable: relax.Var, value: relax.Call) -> None:
        axes, begins, ends, steps = slice_of(value, self.values)
        if len(axes) != 1 or steps[0] != 1:
            return
        axis, begin, end = axes[0] % _RANK, begins[0], ends[0]
        if axis == _WORDS:
            kept, position = [], 0
            for s in self._segments_of(value.args[0]):
                first, last = max(begin, position), min(end, position + s.count)
                if first < last:
                    kept.append(_Segment(s.source, s.first + first - position, last - first, s.rows, s.columns))
                position += s.count
            self._join(variable, kept)
        elif axis in (_ROWS, _COLUMNS):
            self.parts[variable] = _Part(value.args[0], axis, begin, end)

    def _follow_roll(self, variable: relax.Var, fields: list[relax.Expr], axis: int) -> None:
        """Two parts of one tensor in exchanged order are the tensor, moved."""
        late, early = [self.parts.get(field) for field in fields] if len(fields) == 2 else (None, None)
        if late is None or early is None or not late.whole.same_as(early.whole):
            return
        extent = static_shape(late.whole)[axis]
        if late.axis != axis or early.axis != axis or early.begin != 0 or late.end != extent or late.begin != early.end:
            return
        moved = []
        for s in self._segments_of(late.whole):
            rows = s.rows + (late.begin if axis == _ROWS else 0)
            columns = s.columns + (late.begin if axis == _COLUMNS else 0)
            moved.append(_Segment(s.source, s.first, s.count, rows, columns))
        self._join(variable, moved)

    def _segments_of(self, words: relax.Var) -> tuple[_Segment, ...]:
        return self.segments.get(words) or (_Segment(words, 0, static_shape(words)[_WORDS]),)

    def _join(self, variable: relax.Var, segments: list[_Segment]) -> None:
        joined: list[_Segment] = []
        for s in segments:
            last = joined[-1] if joined else None
            if last is not None and last == _Segment(s.source, s.first - last.count, last.count, s.rows, s.columns):
                joined[-1] = _Segment(last.source, last.first, last.count + s.count, s.rows, s.columns)
            else:
                joined.append(s)
        self.segments[variable] = tuple(joined)
