"""The values of every layer from onnxruntime: the graph that the compiler sees, and for a file from elsewhere that file itself.

For a file of ours the two are the same: each Sign and Ternary node's x, its threshold and its output are made outputs of the
graph, which runs in plain operators (``watched_graph``).

For a file from elsewhere the compiler sees what the front end made of it, and a fault of the front end must show. So where a row
of the import report names the value that is binarised in the file (``ActivationReport.source`` and ``threshold``; the row has
the name of the Sign or Ternary node in the recognised graph), x and the threshold are those of the file, computed by the file's own
nodes. The recognised graph then runs with the outputs of these signs replaced by the file's bits: what has no name in the file
(real values inside, signs that were moved behind a MaxPool or a Pad) comes from there, and follows the same bits.

Two things make the recognised graph the only reference, and a note says so: the file has no name for any binarised value; or some
of these images bring about a 0 where the file says sign(0) = 0 and the compiled model -1 or +1, from where on the file's
values belong to another network.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
from onnx import ModelProto, NodeProto

from bnn_deploy.frontend.open_model import OpenedModel
from bnn_deploy.ops.registry import OPERATORS
from bnn_deploy.passes.onnx.import_report import ActivationReport
from bnn_deploy.references.batches import fill_batch
from bnn_deploy.references.graph_layers import GraphLayers
from bnn_deploy.references.layer_values import LayerValues, RawLayers, RawSign
from bnn_deploy.references.rounding import Rounding
from bnn_deploy.references.watched_graph import WatchedGraph

TERNARY_THRESHOLDS = (np.float32(-0.5), np.float32(0.5))


class OnnxruntimeLayers(GraphLayers):
    """A ``LayerReference``."""

    name = "onnxruntime"

    def __init__(self, opened: OpenedModel, path: Path) -> None:
        """``opened`` is any file that can be compiled, opened as it was for that; raises InputError as ``model_shapes`` does."""
        super().__init__(opened, path)
        self._file = _FileSigns.find(opened, self.signs, str(path)) if opened.foreign else None
        self._foreign = opened.foreign

    def capture(self, images: np.ndarray, floats: Sequence[str] = ()) -> LayerValues:
        """Run the images.

        Args:
            images: float32 (n, *input_shape).
            floats: names of float32 values of ``model``.

        Raises:
            InputError: images of another shape or type.
            ModelFileError: ``model`` has no such value.
            ToolError: onnxruntime cannot run the file.
        """
        rounding = self._rounding(images, floats)
        if self._file is not None:
            try:
                return self._follow(images, floats, rounding, self._file)
            except _ZeroMet:
                notes: tuple[str, ...] = (
                    f"{self.path}: some values lie exactly on a threshold, where the file says 0 and the compiled model "
                    "does not; layers are compared with what was recognised in the file, not with the file itself.",
                )
        elif self._foreign:
            notes = (
                f"{self.path}: its binarised values have no names of their own; layers are compared with what was "
                "recognised in the file, not with the file itself.",
            )
        else:
            notes = ()
        return self._follow(images, floats, rounding, None, notes)

    def _follow(
        self,
        images: np.ndarray,
        floats: Sequence[str],
        rounding: Rounding,
        file: _FileSigns | None,
        notes: Sequence[str] = (),
    ) -> LayerValues:
        """The values of the graph, with the bits of ``file`` where that is given."""
        names = [name for node in self.signs for name in (*filter(None, node.input), node.output[0])]
        replaced = [] if file is None else [sign.node.output[0] for sign in file.signs]
        graph = WatchedGraph(self.model, [*names, *floats], replaced, str(self.path))
        return self._measure(images, rounding, lambda part: self._run(part, graph, floats, file), notes)

    def _run(
        self, images: np.ndarray, graph: WatchedGraph, floats: Sequence[str], file: _FileSigns | None
    ) -> RawLayers:
        given = fill_batch(images, self._shapes.batch or 1)
        of_file, logits = file.run(given) if file is not None else ({}, None)
        values = graph.run(given, {name: sign.values.astype(np.float32) for name, sign in of_file.items()})
        signs = {node.output[0]: of_file.get(node.output[0]) or _recognised(node, values) for node in self.signs}
        count = len(images)
        return RawLayers(
            {name: _first_images(sign, count, len(given)) for name, sign in signs.items()},
            {name: _rows(values[name], count, len(given)) for name in floats},
            (values[graph.outputs[0]] if logits is None else logits)[:count],
        )


def _recognised(node: NodeProto, values: dict[str, np.ndarray]) -> RawSign:
    thresholds = TERNARY_THRESHOLDS if node.op_type == "Ternary" else (values[node.input[1]],)
    return RawSign(
        values[node.input[0]], tuple(np.asarray(t) for t in thresholds), values[node.output[0]].astype(np.int8)
    )


def _first_images(sign: RawSign, count: int, given: int) -> RawSign:
    """The part of a batch of ``given`` images that counts."""
    x = _rows(sign.x, count, given)
    return RawSign(
        x, tuple(_threshold_rows(t, sign.x, count, given) for t in sign.thresholds), _rows(sign.values, count, given)
    )


def _rows(array: np.ndarray, count: int, given: int) -> np.ndarray:
    # A value whose first axis is not made of whole images is the same for all of them, or cannot be taken apart.
    return array if count == given or array.ndim == 0 or len(array) % given else array[: len(array) // given * count]


def _threshold_rows(threshold: np.ndarray, x: np.ndarray, count: int, given: int) -> np.ndarray:
    varies = threshold.ndim == x.ndim and threshold.ndim > 0 and len(threshold) == len(x) and len(x) > 1
    return _rows(threshold, count, given) if varies else threshold


class _ZeroMet(Exception):
    """A value on its threshold, where file and compiled model differ."""


@dataclass(frozen=True)
class _FileSign:
    """A sign of the recognised graph whose input has a name in the file, and what the report says of it."""

    node: NodeProto
    row: ActivationReport

    def evaluate(self, values: dict[str, np.ndarray]) -> RawSign:
        x, threshold = values[self.row.source], self.row.threshold
        if self.row.kind == "ternary":
            bound = np.float32(cast(float, threshold))
            signs = (x > bound).astype(np.int8) - (x < -bound).astype(np.int8)
            return RawSign(x, (np.asarray(-bound), np.asarray(bound)), signs)
        bounds = np.asarray(values[threshold] if isinstance(threshold, str) else np.float32(threshold))
        if self.row.graph_zero != self.row.compiled_zero and (x == bounds).any():
            raise _ZeroMet
        signs = OPERATORS["Sign"].reference([x, bounds], {"zero": self.row.compiled_zero})
        return RawSign(x, (bounds,), signs.astype(np.int8))


class _FileSigns:
    """The file as it is, run for the inputs of its signs."""

    def __init__(self, reference: ModelProto, signs: Sequence[_FileSign], source: str) -> None:
        self.signs = tuple(signs)
        names = [name for sign in signs for name in (sign.row.source, sign.row.threshold) if isinstance(name, str)]
        self.graph = WatchedGraph(reference, list(dict.fromkeys(names)), [], source)

    @classmethod
    def find(cls, opened: OpenedModel, nodes: Sequence[NodeProto], source: str) -> _FileSigns | None:
        """None if no binarised value has a name in the file."""
        producers = {output: node for node in opened.model.graph.node for output in node.output}
        named = {node.name: node for node in nodes}
        rows: dict[str, list[ActivationReport]] = {}
        for row in opened.report.activations:
            rows.setdefault(row.name, []).append(row)
        signs = []
        for name, same in rows.items():
            node = named.get(name)
            if node is None or len(same) > 1 or not same[0].source:
                continue
            before = producers.get(node.input[0])
            # Moved behind these by the front end, a sign has another input than in the file.
            if before is not None and before.op_type in ("MaxPool", "Pad"):
                continue
            if (same[0].kind == "ternary") == (node.op_type == "Ternary"):
                signs.append(_FileSign(node, same[0]))
        return cls(opened.reference, signs, source) if signs else None

    def run(self, images: np.ndarray) -> tuple[dict[str, RawSign], np.ndarray]:
        """The signs of one batch by the name of their tensor, and the logits."""
        values = self.graph.run(images)
        return {sign.node.output[0]: sign.evaluate(values) for sign in self.signs}, values[self.graph.outputs[0]]
