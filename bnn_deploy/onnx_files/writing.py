"""Writing ONNX files: what every file of ours carries, and all of it or nothing."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

import onnx

import bnn_deploy
from bnn_deploy.errors import ModelFileError
from bnn_deploy.ops.registry import DOMAIN, OPERATORS, OPSET, STANDARD_OPSET

# IR version of opset 21 (ONNX 1.16), the oldest that holds these files: so that older runtimes still read them.
IR_VERSION = 10


def finish(proto: onnx.ModelProto, metadata: Mapping[str, str], standard_opset: int = STANDARD_OPSET) -> None:
    """Add the functions used and the metadata; remove stack traces and other notes of the exporter.

    Args:
        proto: changed in place.
        metadata: all of ``metadata_props``.
        standard_opset: version of the standard operators in the graph, ``STANDARD_OPSET`` or newer; the functions get it too,
            since runtimes want one version in one file.
    """
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
    proto.functions.extend(operator.function(standard_opset) for name, operator in OPERATORS.items() if name in used)
    del proto.opset_import[:]
    proto.opset_import.append(onnx.helper.make_opsetid("", standard_opset))
    if used:
        proto.opset_import.append(onnx.helper.make_opsetid(DOMAIN, OPSET))
    proto.ir_version = IR_VERSION if standard_opset == STANDARD_OPSET else max(IR_VERSION, proto.ir_version)
    proto.producer_name = "bnn-deploy"
    proto.producer_version = bnn_deploy.__version__
    proto.ClearField("doc_string")
    proto.graph.name = "main"
    onnx.helper.set_model_props(proto, {key: str(metadata[key]) for key in sorted(metadata)})


def write_onnx(proto: onnx.ModelProto, path: Path) -> None:
    """Write beside ``path`` first and rename, so that a reader never sees half a file.

    Raises:
        ModelFileError: the file cannot be written, or would be larger than ONNX allows.
    """
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
