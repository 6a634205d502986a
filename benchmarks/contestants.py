"""Ways to run one network on this machine, each as a function of one batch of images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

import bnn_deploy
from bnn_deploy.bundle.bundle import Bundle

Run = Callable[[np.ndarray], np.ndarray]


def ours(bundle: Bundle, threads: int) -> Run:
    """A bundle in this process."""
    return bnn_deploy.load(bundle.path, threads=threads)  # type: ignore[return-value]


def onnxruntime(path: Path, threads: int) -> Run:
    """The same ONNX file in onnxruntime; its threads stop spinning when a call returns, so that they slow nobody else."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda images: session.run(None, {name: images})[0]


def pytorch(module: Callable[..., object], threads: int) -> Run:
    """A PyTorch module in evaluation mode."""
    import torch

    def run(images: np.ndarray) -> np.ndarray:
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        with torch.inference_mode():
            return module(torch.from_numpy(images)).numpy()  # type: ignore[attr-defined, no-any-return]

    return run


def frozen(module: object) -> object:
    """A copy of a model whose binary layers do not compute signs and scales of their weights again in every call."""
    import copy

    import torch
    from torch.nn import functional as F

    from bnn_deploy.models.layers import BinaryConv2d, BinaryLinear

    copied = copy.deepcopy(module)
    with torch.no_grad():
        for layer in copied.modules():  # type: ignore[attr-defined]
            if isinstance(layer, BinaryConv2d):
                weight = (layer.binary_weight() * layer._broadcast_scale()).contiguous()
                layer.forward = lambda x, layer=layer, weight=weight: layer._convolve(x, weight)  # type: ignore
            elif isinstance(layer, BinaryLinear):
                weight = (layer.binary_weight() * layer.weight_scale().reshape(-1, 1)).contiguous()
                layer.forward = lambda x, weight=weight: F.linear(x, weight)  # type: ignore
    return copied


def larq_interpreter() -> Callable[[bytes, int], Run]:
    """What makes a runner of a converted model (``.tflite``) in Larq Compute Engine, by its indirect kernels.

    Raises:
        ImportError: it cannot be imported; ``larq_compute_engine`` needs TensorFlow too.
    """
    from larq_compute_engine.tflite.python.interpreter import Interpreter

    def make(model: bytes, threads: int) -> Run:
        interpreter = Interpreter(model, num_threads=threads, use_indirect_bgemm=True)
        return lambda images: interpreter.predict(np.ascontiguousarray(images.transpose(0, 2, 3, 1)))

    return make
