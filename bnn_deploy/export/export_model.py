"""PyTorch -> ONNX: binary layers become nodes of the ``bnn_deploy`` domain with packed weights.

The file runs in any ONNX runtime, since it carries a function of standard operators for each of these nodes.
BatchNormalization, biases and activations stay ordinary nodes: folding is the compiler's work.
"""

from __future__ import annotations

import contextlib
import copy
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

import onnx
import onnx_ir as ir
import torch
from torch import nn

from bnn_deploy.errors import InputError, ModelFileError, message_lines
from bnn_deploy.export.cleaning import clean
from bnn_deploy.export.layers import swap_binary_layers
from bnn_deploy.metadata import entries
from bnn_deploy.onnx_files.node_naming import name_nodes, name_values
from bnn_deploy.onnx_files.writing import finish, write_onnx
from bnn_deploy.ops.registry import STANDARD_OPSET

BATCH = "batch"


def export_model(
    module: nn.Module,
    path: str | Path,
    *,
    input_shape: Sequence[int],
    batch: int | Literal["dynamic"] = "dynamic",
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write ``module`` in eval mode to an ONNX file; the module itself is left as it is.

    Args:
        module: maps float32 (N, *input_shape) to one float32 tensor, which the file calls ``input`` and ``logits``.
        path: file to write; replaced only when everything succeeded.
        input_shape: shape of one input without the batch axis, e.g. (3, 224, 224).
        batch: fixed batch size, or "dynamic" for any.
        metadata: written to the file's ``metadata_props`` as it is; a module with a true attribute ``counts_biases``
            (its paper counts the additions of biases as FLOPs) adds ``bnn_deploy.counts_biases``.

    Raises:
        InputError: a shape or batch size that is not positive, or a file that cannot be written.
        ModelFileError: the module cannot be exported.
    """
    if (batch != "dynamic" and batch < 1) or not input_shape or min(input_shape) < 1:
        raise InputError(f"Export needs positive sizes, got batch {batch} and input shape {tuple(input_shape)}.")
    frozen = swap_binary_layers(copy.deepcopy(module).cpu().eval())
    model = _trace(frozen, tuple(input_shape), batch)
    clean(model, frozen.state_dict().keys())
    name_nodes(model.graph, {name: not any(part.children()) for name, part in frozen.named_modules()})
    name_values(model.graph)
    proto = ir.to_proto(model)
    counts_biases = {entries.COUNTS_BIASES: "true"} if getattr(module, "counts_biases", False) else {}
    finish(proto, {**(metadata or {}), **counts_biases})
    onnx.checker.check_model(proto, full_check=True)
    write_onnx(proto, Path(path))


def _trace(module: nn.Module, input_shape: tuple[int, ...], batch: int | Literal["dynamic"]) -> ir.Model:
    """torch.onnx.export without its optimiser, which would fold BatchNormalization into Conv."""
    # torch.export takes sizes 0 and 1 as constants, so a dynamic batch is traced with 2.
    example = torch.zeros(2 if batch == "dynamic" else batch, *input_shape)
    try:
        with _quiet(), torch.no_grad():
            program = torch.onnx.export(
                module,
                (example,),
                dynamo=True,
                opset_version=STANDARD_OPSET,
                input_names=["input"],
                output_names=["logits"],
                dynamic_shapes=({0: torch.export.Dim(BATCH)},) if batch == "dynamic" else None,
                optimize=False,
                verbose=False,
            )
    except Exception as error:
        reason = message_lines(error)[0]
        raise ModelFileError(
            f"PyTorch could not export {type(module).__name__} for inputs of shape {tuple(example.shape)}: {reason}"
        ) from error
    if program is None:
        raise ModelFileError(f"PyTorch exported nothing for {type(module).__name__}; torch 2.8 or newer is needed.")
    return program.model


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter's warnings about things it does not need (torchvision) or does itself."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
