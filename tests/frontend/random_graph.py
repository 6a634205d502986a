"""A standard ONNX graph in the making, which knows of each value how large it is, how finely divided, and whether it is binary.

All numbers are multiples of a power of two (the grain) and small beside it, so that float32 arithmetic on them is exact in
whatever order it is done: two correct programs give *equal* results. Nothing here imports bnn_deploy.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

# bound / grain stays below: 24 bits are exact in float32, and sums of a few such numbers must be, too.
MOST_STEPS = 2.0**21
BATCH = 2


@dataclass(frozen=True)
class Known:
    """A float32 value of the graph and what its maker knows of it.

    Attributes:
        name: in the graph.
        shape: with ``BATCH`` for the batch, even where the file leaves it open.
        bound, grain: every element is a multiple of ``grain`` and at most ``bound`` in magnitude.
        levels: (low, middle or None, high) of a binarisation that must be found, for x below, at and above its threshold.
        passed: "M" for each MaxPool and "P" for each Pad since then.
        opaque: computed from real numbers, so that no simpler binarisation can be found behind it.
    """

    name: str
    shape: tuple[int, ...]
    bound: float
    grain: float
    levels: tuple[float, float | None, float] | None = None
    passed: str = ""
    opaque: bool = False

    @property
    def fits(self) -> bool:
        """Whether arithmetic on it is exact."""
        return self.bound / self.grain <= MOST_STEPS


@dataclass
class GraphBuilder:
    """Collects nodes and constants; names are made from numbers.

    Attributes:
        opset: of the file: some operators take as attributes what later versions take as inputs.
        open_batch: whether the file leaves the size of the batch open.
        binary_layers: names of the nodes that must be found to be binary.
        zero_layers: names of nodes that would be, had they no weights that are 0.
    """

    random: np.random.Generator
    opset: int
    open_batch: bool
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, np.ndarray] = field(default_factory=dict)
    binary_layers: set[str] = field(default_factory=set)
    zero_layers: set[str] = field(default_factory=set)
    count: int = 0

    def chance(self, probability: float) -> bool:
        """True so often."""
        return bool(self.random.random() < probability)

    def pick(self, options: list) -> object:
        """One of these."""
        return options[int(self.random.integers(len(options)))]

    def name(self, kind: str) -> str:
        """A new name."""
        self.count += 1
        return f"{kind}_{self.count}"

    def constant(self, array: np.ndarray | list | float, dtype: type = np.float32) -> str:
        """The name of a constant, mostly an initializer."""
        name, array = self.name("k"), np.asarray(array, dtype)
        if self.chance(0.2):
            self.nodes.append(helper.make_node("Constant", [], [name], value=numpy_helper.from_array(array)))
        else:
            self.constants[name] = np.ascontiguousarray(array).reshape(array.shape)
        return name

    def op(
        self, operator: str, *inputs: str, outputs: int = 1, label: str = "", **attributes: object
    ) -> str | list[str]:
        """One node; the name of its output, or names if it has several."""
        names = [self.name(operator.lower()) for _ in range(outputs)]
        label = label or (self.name("node") if self.chance(0.7) else "")
        self.nodes.append(helper.make_node(operator, list(inputs), names, name=label, **attributes))
        return names[0] if outputs == 1 else names

    def cast(self, source: str, dtype: int = TensorProto.FLOAT) -> str:
        """Cast, to float32 unless told otherwise."""
        return self.op("Cast", source, to=dtype)

    def axes(self, operator: str, source: str, axes: list[int], since: int = 13, **attributes: object) -> str:
        """An operator whose axes are an input since opset ``since``."""
        if self.opset >= since:
            return self.op(operator, source, self.constant(axes, np.int64), **attributes)
        return self.op(operator, source, axes=axes, **attributes)

    def derived(self, name: str, of: Known, **changes: object) -> Known:
        """What is known of a value made from ``of``; real, unless levels are given."""
        changes.setdefault("levels", None)
        changes.setdefault("passed", "")
        changes.setdefault("opaque", False)
        return replace(of, name=name, **changes)

    def model(self, x: Known, outputs: list[Known]) -> onnx.ModelProto:
        """The finished model, checked."""
        batch = "batch" if self.open_batch else BATCH
        inputs = [helper.make_tensor_value_info(x.name, TensorProto.FLOAT, [batch, *x.shape[1:]])]
        results = [
            helper.make_tensor_value_info(value.name, TensorProto.FLOAT, [None] * len(value.shape)) for value in outputs
        ]
        tensors = [numpy_helper.from_array(array, name) for name, array in self.constants.items()]
        graph = helper.make_graph(self.nodes, "random", inputs, results, tensors)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=10)
        onnx.checker.check_model(model)
        return model
