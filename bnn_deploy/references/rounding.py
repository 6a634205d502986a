"""Measures the rounding margin of every layer of a model, see ``margin``: the model run twice, once with its constants moved.

Both runs are given the same values of all signs, so what is found is how rounding travels from one binarisation to the next.
The same seed, so the same margins, for whatever reference the signs come from.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from bnn_deploy.references.batches import fill_batch
from bnn_deploy.references.graph_signs import sign_nodes
from bnn_deploy.references.layer_values import RawLayers, largest
from bnn_deploy.references.margin import NOISE, margin_of
from bnn_deploy.references.watched_graph import WatchedGraph

# Operators whose constants are numbers to compute with: those of others may be sizes (Resize), bounds or axes.
_ARITHMETIC = {
    *("Add", "Sub", "Mul", "Div", "PRelu", "Gemm", "MatMul", "Conv", "ConvTranspose"),
    *("BatchNormalization", "GroupNormalization", "InstanceNormalization", "LayerNormalization"),
    *("Sign", "TapScaledBinaryConv"),
}


# Operators that add up many terms of one sign: noise of the terms cancels out, the rounding of the sums does not.
_SUMS = {"ReduceMean", "ReduceSum", "ReduceL1", "GlobalAveragePool"}
# A sum of n terms is rounded n times, each time by up to 2^-24 of what it is by then: 2^-24 sqrt(n) of the sum in all, as roundings
# do not agree in direction; two computations do so each. margin.SAFETY makes 2 * 2^-24 sqrt(n) of this.
SUM_NOISE = 2.0**-26


class Rounding:
    """A model of ``bnn_deploy`` nodes, with its constants as they are and moved."""

    def __init__(self, model: ModelProto, batch: int, floats: Sequence[str], source: str) -> None:
        """Prepare both.

        Args:
            model: the graph that the compiler sees.
            batch: its fixed batch size, or 0.
            floats: real values whose margins are wanted, besides those of all signs and of the output.
            source: for messages.

        Raises:
            ModelFileError: ``model`` has no such value.
            ToolError: onnxruntime refuses the model.
        """
        self._signs = sign_nodes(model)
        self._batch = max(1, batch)
        self._generator = np.random.default_rng(0)
        output = model.graph.output[0].name
        signs = {node.output[0] for node in self._signs}
        self._floats = [name for name in dict.fromkeys([*floats, output]) if name not in signs]
        # Watched as it is computed and forced as it is read: the same value where a model gives out its signs.
        watched = [*(name for node in self._signs for name in node.input if name), *self._floats]
        forced = [node.output[0] for node in self._signs]
        self._plain = WatchedGraph(model, watched, forced, source)
        self._moved = WatchedGraph(self._with_noise(model), watched, forced, source)

    def margins(self, images: np.ndarray, raw: RawLayers) -> dict[str, float]:
        """The margins by tensor.

        Args:
            images: float32 (n, ...), of one batch of the reference.
            raw: what it gave for these images.
        """
        given = fill_batch(images, self._batch)
        forced = {
            node.output[0]: _fill(raw.signs[node.output[0]].values, len(images), len(given)).astype(np.float32)
            for node in self._signs
        }
        images = given
        plain, moved = self._plain.run(images, forced), self._moved.run(self._noisy(images), forced)
        found = {}
        for node in self._signs:
            names = [name for name in node.input if name]
            distance = sum(_moved(plain[name], moved[name]) for name in names)
            found[node.output[0]] = margin_of(distance, max(largest(plain[name]) for name in names))
        for name in self._floats:
            found[name] = margin_of(_moved(plain[name], moved[name]), largest(plain[name]))
        return found

    def _with_noise(self, model: ModelProto) -> ModelProto:
        copy = ModelProto()
        copy.CopyFrom(model)
        counted: dict[str, bool] = {}
        for node in copy.graph.node:
            for name in node.input:
                counted[name] = counted.get(name, True) and node.op_type in _ARITHMETIC
        for tensor in copy.graph.initializer:
            if tensor.data_type == TensorProto.FLOAT and counted.get(tensor.name, False):
                tensor.CopyFrom(numpy_helper.from_array(self._noisy(numpy_helper.to_array(tensor)), tensor.name))
        nodes = [
            part for node in copy.graph.node for part in ([node] if node.op_type not in _SUMS else _moved_sum(node))
        ]
        del copy.graph.node[:]
        copy.graph.node.extend(nodes)
        copy.graph.initializer.append(numpy_helper.from_array(np.array(SUM_NOISE, np.float32), _SUM_NOISE_NAME))
        copy.graph.initializer.append(numpy_helper.from_array(np.array(1, np.float32), _ONE_NAME))
        return copy

    def _noisy(self, array: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore", over="ignore"):
            return np.asarray(array * (1 + NOISE * self._generator.uniform(-1, 1, array.shape)), np.float32)


_SUM_NOISE_NAME, _ONE_NAME = "bnn_deploy.sum_noise", "bnn_deploy.one"


def _moved_sum(node: NodeProto) -> list[NodeProto]:
    """A sum over n terms for each result, and its results times 1 + SUM_NOISE * sqrt(n); n is known when it runs."""
    result = node.output[0]
    moved = NodeProto()
    moved.CopyFrom(node)
    plain = moved.output[0] = f"bnn_deploy.plain.{result}"

    def add(operator: str, inputs: list[str], output: str, **attributes: Any) -> str:
        added.append(helper.make_node(operator, inputs, [output], f"{output}.{operator}", **attributes))
        return output

    added = [moved]
    sizes = [
        add("Cast", [add("Size", [name], f"{plain}.{which}")], f"{plain}.{which}.float", to=TensorProto.FLOAT)
        for which, name in (("terms", node.input[0]), ("results", plain))
    ]
    root = add("Sqrt", [add("Div", sizes, f"{plain}.ratio")], f"{plain}.root")
    factor = add("Add", [add("Mul", [root, _SUM_NOISE_NAME], f"{plain}.noise"), _ONE_NAME], f"{plain}.factor")
    add("Mul", [plain, factor], result)
    return added


def _fill(values: np.ndarray, images: int, given: int) -> np.ndarray:
    """Values of ``images`` images for ``given``, the last image's repeated, as ``fill_batch`` does it."""
    if images == given or len(values) % images:
        return values
    return np.concatenate([values, *[values[-(len(values) // images) :]] * (given - images)])


def _moved(plain: np.ndarray, moved: np.ndarray) -> float:
    """The largest distance between two values that are numbers."""
    with np.errstate(invalid="ignore"):
        return largest(moved.astype(np.float64) - plain)
