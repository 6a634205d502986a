"""How often the values that a model binarises lie exactly on the threshold: where its file and its bundle may differ.

A file may say sign(0) = 0 and its bundle -1, because zeros are not to be expected there. This counts them, in the file's own
graph: x == t becomes one number per image, which the runtime gives out beside the logits::

    counts = ReduceSum(Cast(Not(Cast(x - t, bool)), int32), axes=[1])        # of Flatten(x, axis=1)

x - t is 0 just when x equals t: IEEE 754 underflows gradually. NaN is not 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from bnn_deploy.errors import ModelFileError
from bnn_deploy.onnx_files.standard_operators import standard_opset
from bnn_deploy.ops.registry import DOMAIN
from bnn_deploy.passes.onnx.import_report import ActivationReport

_PREFIX = "bnn_deploy.zeros"
# From here on ReduceSum takes its axes as an input.
_AXES_ARE_AN_INPUT = 13


@dataclass(frozen=True)
class Probe:
    """A binarisation to watch.

    Attributes:
        name: of its node, for reports.
        value: what is binarised, a value of the graph.
        threshold: what it is compared with: a number, or the name of a value that broadcasts to ``value``.
        compiled_zero: what the bundle makes of a value on the threshold.
    """

    name: str
    value: str
    threshold: float | str
    compiled_zero: int


def probes_of(model: ModelProto, activations: Iterable[ActivationReport]) -> list[Probe]:
    """One for each activation that is 0 at its threshold in the file but not in the bundle.

    The threshold of a ``bnn_deploy`` node is read from ``model``, that of any other from its report.
    """
    signs = {node.name: node for node in model.graph.node if node.domain == DOMAIN and node.op_type == "Sign"}
    probes = []
    for row in activations:
        if row.graph_zero != 0 or row.compiled_zero == 0 or not row.source:
            continue
        threshold = signs[row.name].input[1] if row.name in signs else row.threshold
        probes.append(Probe(row.name, row.source, threshold, row.compiled_zero))
    return probes


class ZeroCounter:
    """Counts over everything that a model is run on.

    Attributes:
        model: the model with one more pair of outputs for each probe; to be run instead of it.
    """

    def __init__(self, model: ModelProto, probes: Sequence[Probe]) -> None:
        """Copy ``model`` and add the outputs.

        Raises:
            ModelFileError: a value is not in the model.
        """
        self.probes = tuple(probes)
        self.compared = [0] * len(probes)
        self.zeros = [0] * len(probes)
        self.model = ModelProto()
        self.model.CopyFrom(model)
        graph = self.model.graph
        known = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
        known |= {output for node in graph.node for output in node.output}
        self._prefix = _PREFIX
        while any(name.startswith(self._prefix) for name in known):
            self._prefix += "_"
        opset = standard_opset(model)
        for index, probe in enumerate(probes):
            for name in (probe.value, probe.threshold):
                if isinstance(name, str) and name not in known:
                    raise ModelFileError(
                        f"The model has no value {name!r}, which {probe.name!r} binarises; compile the model again."
                    )
            self._watch(index, probe, opset)

    def _watch(self, index: int, probe: Probe, opset: int) -> None:
        graph = self.model.graph

        def named(name: str) -> str:
            return f"{self._prefix}.{index}.{name}"

        def add(operator: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
            node: NodeProto = helper.make_node(operator, inputs, [named(output)], named(output), **attributes)
            graph.node.append(node)
            return named(output)

        def constant(name: str, array: np.ndarray) -> str:
            graph.initializer.append(numpy_helper.from_array(array, named(name)))
            return named(name)

        difference = probe.value
        if probe.threshold != 0.0:
            number = probe.threshold
            bound = number if isinstance(number, str) else constant("threshold", np.array(number, np.float32))
            difference = add("Sub", [probe.value, bound], "difference")
        nonzero = add("Cast", [add("Flatten", [difference], "rows", axis=1)], "nonzero", to=TensorProto.BOOL)
        ones = add("Cast", [add("Not", [nonzero], "zero")], "ones", to=TensorProto.INT32)
        if opset < _AXES_ARE_AN_INPUT:
            counts = add("ReduceSum", [ones], "counts", axes=[1], keepdims=0)
        else:
            counts = add("ReduceSum", [ones, constant("axes", np.array([1], np.int64))], "counts", keepdims=0)
        shape = add("Shape", [probe.value], "shape")
        graph.output.append(helper.make_tensor_value_info(counts, TensorProto.INT32, [None]))
        graph.output.append(helper.make_tensor_value_info(shape, TensorProto.INT64, [None]))

    def add(self, outputs: Sequence[np.ndarray], images: int, given: int) -> None:
        """Take the additional outputs of one run on ``given`` images, of which the first ``images`` count.

        Where only a part counts, a value whose first axis is not made of whole images is left out of that run.
        """
        for index, (counts, shape) in enumerate(zip(outputs[::2], outputs[1::2], strict=True)):
            rows, elements = len(counts), prod(int(extent) for extent in shape)
            if images == given:
                kept = rows
            elif rows % given == 0:
                kept = rows // given * images
            else:
                continue
            self.zeros[index] += int(counts[:kept].sum(dtype=np.int64))
            self.compared[index] += elements // rows * kept if rows else 0

    def to_dict(self) -> dict[str, Any]:
        """``compared`` and ``zeros`` over all probes, and for each layer its name, its zeros and the bundle's value there."""
        layers = [
            {"name": probe.name, "zeros": zeros, "bundle": probe.compiled_zero}
            for probe, zeros in zip(self.probes, self.zeros, strict=True)
        ]
        return {"compared": sum(self.compared), "zeros": sum(self.zeros), "layers": layers}
