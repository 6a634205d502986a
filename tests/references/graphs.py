"""Small graphs of ``bnn_deploy`` nodes, and values at which binarisation is delicate."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper

from bnn_deploy.bits import pack_bits
from bnn_deploy.frontend.open_model import open_model
from bnn_deploy.onnx_files.writing import finish, write_onnx
from bnn_deploy.ops.registry import DOMAIN, STANDARD_OPSET
from bnn_deploy.passes.onnx.import_report import ImportOptions
from bnn_deploy.references.choose_layers import open_layers
from bnn_deploy.references.onnxruntime_layers import OnnxruntimeLayers
from bnn_deploy.references.torch_layers import TorchLayers

TINY = np.float32(1e-45)  # the smallest subnormal
SPECIAL = np.array([0.0, -0.0, np.nan, TINY, -TINY, np.inf, -np.inf, 1.0], np.float32)
FEATURES = len(SPECIAL)
CLASSES = 3


def ours(operator: str, inputs: list[str], output: str, name: str, **attributes: int) -> NodeProto:
    return helper.make_node(operator, inputs, [output], name, domain=DOMAIN, **attributes)


def linear(source: str, output: str, name: str, outputs: int) -> tuple[NodeProto, np.ndarray]:
    """A BinaryLinear of ``FEATURES`` inputs, and its weights of +1 and -1."""
    weights = np.random.default_rng(outputs).choice([-1, 1], (outputs, FEATURES)).astype(np.int8)
    node = ours("BinaryLinear", [source, f"{name}.packed"], output, name, in_features=FEATURES)
    return node, weights


def write(
    path: Path, nodes: list[NodeProto], constants: dict[str, np.ndarray], shape: tuple[int, ...], batch: int | str
) -> Path:
    """A model from ``image`` (batch, *shape) to ``logits``."""
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [batch, *shape])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, *shape[:-1], CLASSES])
    tensors = [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()]
    model = helper.make_model(helper.make_graph(nodes, "main", [image], [logits], tensors))
    finish(model, {}, STANDARD_OPSET)
    write_onnx(model, path)
    return path


def one_sign(path: Path, zero: int) -> Path:
    """(N, 8) to (N, 3): Sign of the image itself, then a binary layer."""
    layer, weights = linear("s", "logits", "layer", CLASSES)
    nodes = [ours("Sign", ["image", "t"], "s", "sign", zero=zero), layer]
    return write(path, nodes, {"t": np.float32(0), "layer.packed": pack_bits(weights)}, (FEATURES,), "n")


def two_signs(path: Path, shape: tuple[int, ...] = (FEATURES,), batch: int | str = "n") -> Path:
    """(N, *shape) to (N, ..., 3): Sign(2 x, mean of x), a binary layer, Ternary of a quarter of it, a binary layer."""
    first, first_weights = linear("s1", "y1", "first", FEATURES)
    second, second_weights = linear("s2", "logits", "second", CLASSES)
    nodes = [
        helper.make_node("Mul", ["image", "two"], ["x1"], "double"),
        helper.make_node("ReduceMean", ["image", "axes"], ["t1"], "mean", keepdims=1),
        ours("Sign", ["x1", "t1"], "s1", "sign1", zero=-1),
        first,
        helper.make_node("Mul", ["y1", "quarter"], ["x2"], "scale"),
        ours("Ternary", ["x2"], "s2", "sign2"),
        second,
    ]
    constants = {
        "two": np.float32(2),
        "axes": np.array([-1], np.int64),
        "quarter": np.float32(0.25),
        "first.packed": pack_bits(first_weights),
        "second.packed": pack_bits(second_weights),
    }
    return write(path, nodes, constants, shape, batch)


def images(count: int, shape: tuple[int, ...] = (FEATURES,), seed: int = 0) -> np.ndarray:
    """Eighths in -1 to 1: sums, means and products of 8 of them are exact."""
    return (np.random.default_rng(seed).integers(-8, 9, (count, *shape)) / 8).astype(np.float32)


def layers_of(
    path: Path, reference: str = "onnxruntime", options: ImportOptions | None = None, weights: Path | None = None
) -> OnnxruntimeLayers | TorchLayers:
    """The layers of the model in a file, opened as a bundle with these options would be compiled from it."""
    return open_layers(reference, open_model(path, options), path, weights)
