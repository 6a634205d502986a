"""PyTorch -> ONNX: binary layers become nodes of the ``bnn_deploy`` domain with packed weights.

The file runs in any ONNX runtime, since it carries a function of standard operators for each of these nodes.
BatchNormalization, biases and activations stay ordinary nodes: folding is the compiler's work.
"""

from __future__ import annotations

import contextlib
import copy
import logging
import os
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

import onnx
import onnx_ir as ir
import torch
from torch import nn

import bnn_deploy
from bnn_deploy.errors import InputError, ModelFileError, message_lines
from bnn_deploy.export_cleaning import clean
from bnn_deploy.export_layers import swap_binary_layers
from bnn_deploy.export_naming import name_graph
from bnn_deploy.ops.registry import DOMAIN, OPERATORS, OPSET, STANDARD_OPSET

# IR version of opset 21 (ONNX 1.16), the oldest that holds this file: so that older runtimes still read it.
IR_VERSION = 10
BATCH = "batch"
COUNTS_BIASES = "bnn_deploy.counts_biases"


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
        InputError: a shape or batch size that is not positive.
        ModelFileError: the module cannot be exported, or the file cannot be written.
    """
    if (batch != "dynamic" and batch < 1) or not input_shape or min(input_shape) < 1:
        raise InputError(f"Export needs positive sizes, got batch {batch} and input shape {tuple(input_shape)}.")
    frozen = swap_binary_layers(copy.deepcopy(module).cpu().eval())
    model = _trace(frozen, tuple(input_shape), batch)
    clean(model, frozen.state_dict().keys())
    name_graph(model.graph, {name: not any(part.children()) for name, part in frozen.named_modules()})
    proto = ir.to_proto(model)
    counts_biases = {COUNTS_BIASES: "true"} if getattr(module, "counts_biases", False) else {}
    _finish(proto, {**(metadata or {}), **counts_biases})
    onnx.checker.check_model(proto, full_check=True)
    _write(proto, Path(path))


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


def _finish(proto: onnx.ModelProto, metadata: Mapping[str, str]) -> None:
    """Add the functions used and the metadata; remove stack traces and other notes of the exporter."""
    for item in (proto.graph, *proto.graph.node, *proto.graph.value_info, *proto.graph.initializer):
        del item.metadata_props[:]
        item.ClearField("doc_string")
    for value in (*proto.graph.input, *proto.graph.output):
        del value.metadata_props[:]
        value.ClearField("doc_string")
    # Runtimes infer these shapes; with names as long as module paths they would be a tenth of the file.
    del proto.graph.value_info[:]
    used = {node.op_type for node in proto.graph.node if node.domain == DOMAIN}
    del proto.functions[:]
    proto.functions.extend(operator.function() for name, operator in OPERATORS.items() if name in used)
    del proto.opset_import[:]
    proto.opset_import.append(onnx.helper.make_opsetid("", STANDARD_OPSET))
    if used:
        proto.opset_import.append(onnx.helper.make_opsetid(DOMAIN, OPSET))
    proto.ir_version = IR_VERSION
    proto.producer_name = "bnn-deploy"
    proto.producer_version = bnn_deploy.__version__
    proto.ClearField("doc_string")
    proto.graph.name = "main"
    onnx.helper.set_model_props(proto, {key: str(metadata[key]) for key in sorted(metadata)})


def _write(proto: onnx.ModelProto, path: Path) -> None:
    """Write beside ``path`` first and rename, so that a reader never sees half a file."""
    # Deterministic: maps have no order of their own in protobuf.
    content = proto.SerializeToString(deterministic=True)
    temporary: str | None = None
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
        # mkstemp makes the file private; give it the permissions that open() would.
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(temporary, 0o666 & ~mask)
        os.replace(temporary, path)
    except OSError as error:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        raise ModelFileError(f"Cannot write {path}: {error.strerror}; choose an existing, writable folder.") from error


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
