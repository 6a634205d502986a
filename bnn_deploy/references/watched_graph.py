"""An ONNX graph that also gives out values from its inside, and in which values can be replaced, run in onnxruntime."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

from bnn_deploy.errors import ModelFileError, ToolError, message_lines


class WatchedGraph:
    """A model with more outputs, and with some values as inputs instead.

    The graph is run as it is written, without onnxruntime's optimisations: fused operators round otherwise, and the values
    between them would not exist. Asking for a value may still be no change of the graph: nothing is computed anew for it.
    """

    def __init__(self, model: ModelProto, watched: Sequence[str], replaced: Collection[str], source: str) -> None:
        """Load a copy of ``model``.

        Args:
            model: one input; float32 or integers are computed in it.
            watched: values to give out; constants and the input of the graph may be among them.
            replaced: float32 values that each run is given; what computes them is not run for them.
            source: for messages.

        Raises:
            ModelFileError: a value is not in the model.
            ToolError: onnxruntime refuses the model.
        """
        import onnxruntime

        self.source = source
        copy = ModelProto()
        copy.CopyFrom(model)
        graph = copy.graph
        self.constants = _constants(copy, watched)
        initializers = {tensor.name for tensor in graph.initializer}
        self.input = next(value.name for value in graph.input if value.name not in initializers)
        produced = {output for node in graph.node for output in node.output if output}
        for name in (*watched, *replaced):
            if name not in produced and name not in self.constants and name != self.input:
                raise ModelFileError(f"{source}: has no value {name!r} to watch; compile the model again.")
        # What computes a replaced value goes on under another name, so that nobody but the output of the graph reads it.
        computed = {name: f"{name}/computed" for name in replaced}
        for node in graph.node:
            for index, output in enumerate(node.output):
                node.output[index] = computed.get(output, output)
        for value in graph.output:
            value.name = computed.get(value.name, value.name)
        existing = [value.name for value in graph.output]
        own = {*existing, *replaced}
        added = dict.fromkeys(name for name in watched if name in produced and name not in own)
        # Elements are float32, or the loading fails; the shapes are for the runtime to find out.
        graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in added)
        graph.input.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in replaced)
        self.outputs = [*existing, *added]
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        try:
            self.session = onnxruntime.InferenceSession(copy.SerializeToString(), options, ["CPUExecutionProvider"])
        except Exception as error:
            raise ToolError(
                f"{source}: onnxruntime cannot load it with the values of its layers as outputs "
                f"({message_lines(error)[0]}); export the model again."
            ) from error

    def run(self, images: np.ndarray, replaced: Mapping[str, np.ndarray] | None = None) -> dict[str, np.ndarray]:
        """All outputs and watched values by name.

        Raises:
            ToolError: onnxruntime cannot run it.
        """
        try:
            results = self.session.run(self.outputs, {self.input: images, **(replaced or {})})
        except Exception as error:
            raise ToolError(
                f"{self.source}: onnxruntime cannot run it ({message_lines(error)[0]}); export the model again."
            ) from error
        given = {self.input: images, **self.constants, **(replaced or {})}
        return {**given, **dict(zip(self.outputs, results, strict=True))}


def _constants(model: ModelProto, names: Collection[str]) -> dict[str, np.ndarray]:
    """Those of the named values that the file holds."""
    found = {
        tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer if tensor.name in set(names)
    }
    for node in model.graph.node:
        if node.op_type == "Constant" and node.output[0] in names:
            tensor = next((entry.t for entry in node.attribute if entry.name == "value"), None)
            if tensor is not None:
                found[node.output[0]] = numpy_helper.to_array(tensor)
    return found
