"""Two ways to run an exported file that share no code with the compiler."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from bnn_deploy.ops.registry import DOMAIN, OPERATORS


def run_onnxruntime(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    """Plain onnxruntime, which knows the domain only by the file's functions."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x})[0]


def run_numpy(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    """onnx's numpy evaluator with our numpy references in place of the file's functions."""
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    del bare.functions[:]
    evaluator = ReferenceEvaluator(bare, new_ops=[_as_class(name) for name in OPERATORS])
    return evaluator.run(None, {model.graph.input[0].name: x})[0]


def _as_class(name: str) -> type[OpRun]:
    operator = OPERATORS[name]

    def run(self: OpRun, *arrays: np.ndarray, **_: object) -> tuple[np.ndarray]:
        return (operator.reference(arrays, operator.attributes_of(self.onnx_node)),)

    return type(name, (OpRun,), {"op_domain": DOMAIN, "_run": run})
